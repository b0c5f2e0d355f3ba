//! Tokens to the clauses of one `select` over one metric table.
//!
//! Invariant: whatever is not one of the clauses below is an error at its place; nothing of a text is ignored.

use sqlparser::ast::{Expr, Ident};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::shape::DIALECT;
use crate::model::sql_error::SqlError;

/// One entry of the select list.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `*`
    All(Span),
    Expr {
        expr: Expr,
        alias: Option<Ident>,
    },
}

/// One entry of `order by`.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderItem {
    pub expr: Expr,
    pub descending: bool,
    /// `None`: as Postgres, last when ascending, first when descending.
    pub nulls_first: Option<bool>,
}

/// The clauses of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub items: Vec<Item>,
    pub table: Ident,
    pub table_alias: Option<Ident>,
    pub selection: Option<Expr>,
    pub group_by: Vec<Expr>,
    pub having: Option<Expr>,
    pub order_by: Vec<OrderItem>,
    pub limit: Option<Expr>,
    pub offset: Option<Expr>,
}

/// Parses tokens that `Shape::of` let through; `text` is what their places refer to.
pub fn parse(text: &str, tokens: Vec<TokenWithSpan>, nesting: usize) -> Result<Query, SqlError> {
    let parser = Parser::new(&DIALECT).with_recursion_limit(nesting + 8).with_tokens_with_locations(tokens);
    Clauses { text, parser }.query()
}

struct Clauses<'a> {
    text: &'a str,
    parser: Parser<'a>,
}

/// Words that cannot be an alias without `as`, since they begin what follows or what we refuse.
const NOT_AN_ALIAS: [Keyword; 27] = [
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::JOIN,
    Keyword::INNER,
    Keyword::LEFT,
    Keyword::RIGHT,
    Keyword::FULL,
    Keyword::CROSS,
    Keyword::NATURAL,
    Keyword::LATERAL,
    Keyword::ON,
    Keyword::USING,
    Keyword::UNION,
    Keyword::INTERSECT,
    Keyword::EXCEPT,
    Keyword::WINDOW,
    Keyword::QUALIFY,
    Keyword::FETCH,
    Keyword::FOR,
    Keyword::INTO,
    Keyword::TABLESAMPLE,
    Keyword::AS,
];

impl Clauses<'_> {
    fn query(mut self) -> Result<Query, SqlError> {
        self.parser.expect_keyword_is(Keyword::SELECT).map_err(|error| self.error(error))?;
        if self.parser.peek_keyword(Keyword::DISTINCT) {
            return Err(self.here("select distinct is not supported: use group by"));
        }
        let items = self.items()?;
        if !self.parser.parse_keyword(Keyword::FROM) {
            return Err(self.expected("from and the name of a metric table"));
        }
        let table = self.name("the name of a metric table")?;
        let table_alias = self.alias()?;
        let selection = self.clause(Keyword::WHERE)?;
        let group_by = if self.two(Keyword::GROUP, Keyword::BY) { self.list(Self::expr)? } else { Vec::new() };
        let having = self.clause(Keyword::HAVING)?;
        let order_by = if self.two(Keyword::ORDER, Keyword::BY) { self.list(Self::order_item)? } else { Vec::new() };
        let (mut limit, mut offset) = (None, None);
        loop {
            if limit.is_none() && self.parser.parse_keyword(Keyword::LIMIT) {
                limit = Some(self.expr()?);
            } else if offset.is_none() && self.parser.parse_keyword(Keyword::OFFSET) {
                offset = Some(self.expr()?);
            } else {
                break;
            }
        }
        self.end()?;
        Ok(Query { items, table, table_alias, selection, group_by, having, order_by, limit, offset })
    }

    fn items(&mut self) -> Result<Vec<Item>, SqlError> {
        self.list(|clauses| {
            let span = clauses.parser.peek_token_ref().span;
            if clauses.parser.consume_token(&Token::Mul) {
                return Ok(Item::All(span));
            }
            if clauses.parser.peek_keyword(Keyword::FROM) {
                return Err(clauses.expected("an expression"));
            }
            Ok(Item::Expr { expr: clauses.expr()?, alias: clauses.alias()? })
        })
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T, SqlError>) -> Result<Vec<T>, SqlError> {
        let mut all = vec![one(self)?];
        while self.parser.consume_token(&Token::Comma) {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn order_item(&mut self) -> Result<OrderItem, SqlError> {
        let expr = self.expr()?;
        let descending = !self.parser.parse_keyword(Keyword::ASC) && self.parser.parse_keyword(Keyword::DESC);
        let mut nulls_first = None;
        if self.parser.parse_keyword(Keyword::NULLS) {
            nulls_first = Some(self.parser.parse_keyword(Keyword::FIRST));
            if nulls_first == Some(false) && !self.parser.parse_keyword(Keyword::LAST) {
                return Err(self.expected("first or last"));
            }
        }
        Ok(OrderItem { expr, descending, nulls_first })
    }

    fn clause(&mut self, keyword: Keyword) -> Result<Option<Expr>, SqlError> {
        if self.parser.parse_keyword(keyword) { self.expr().map(Some) } else { Ok(None) }
    }

    fn two(&mut self, first: Keyword, second: Keyword) -> bool {
        self.parser.parse_keywords(&[first, second])
    }

    fn expr(&mut self) -> Result<Expr, SqlError> {
        self.parser.parse_expr().map_err(|error| self.error(error))
    }

    fn alias(&mut self) -> Result<Option<Ident>, SqlError> {
        if self.parser.parse_keyword(Keyword::AS) {
            return self.name("a name").map(Some);
        }
        match &self.parser.peek_token_ref().token {
            Token::Word(word) if !NOT_AN_ALIAS.contains(&word.keyword) => self.name("a name").map(Some),
            _ => Ok(None),
        }
    }

    fn name(&mut self, what: &str) -> Result<Ident, SqlError> {
        let TokenWithSpan { token: Token::Word(word), span } = self.parser.peek_token_ref() else {
            return Err(self.expected(what));
        };
        let name = word.clone().into_ident(*span);
        self.parser.advance_token();
        Ok(name)
    }

    /// Nothing may follow but one semicolon.
    fn end(&mut self) -> Result<(), SqlError> {
        let ended = self.parser.consume_token(&Token::SemiColon);
        let message = match &self.parser.peek_token_ref().token {
            Token::EOF => return Ok(()),
            _ if ended => "one statement at a time",
            Token::Comma => "one metric table at a time: joins are not supported",
            Token::Period => "a metric table has a plain name, without a schema",
            Token::Word(word) => match word.keyword {
                Keyword::JOIN
                | Keyword::INNER
                | Keyword::LEFT
                | Keyword::RIGHT
                | Keyword::FULL
                | Keyword::CROSS
                | Keyword::NATURAL => "joins are not supported",
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => "set operations are not supported",
                Keyword::FETCH => "fetch is not supported: use limit",
                _ => return Err(self.expected(FOLLOWING)),
            },
            _ => return Err(self.expected(FOLLOWING)),
        };
        Err(self.here(message))
    }

    fn expected(&self, what: &str) -> SqlError {
        match &self.parser.peek_token_ref().token {
            Token::EOF => SqlError::at_end(self.text, format!("expected {what}, found the end")),
            found => self.here(&format!("expected {what}, found {found}")),
        }
    }

    fn here(&self, message: &str) -> SqlError {
        SqlError::at(self.text, self.parser.peek_token_ref().span, message)
    }

    fn error(&self, error: ParserError) -> SqlError {
        match error {
            ParserError::RecursionLimitExceeded => self.here("the expression is nested too deeply"),
            other => SqlError::from_parser(self.text, other),
        }
    }
}

const FOLLOWING: &str = "where, group by, having, order by, limit or offset, in this order";

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
