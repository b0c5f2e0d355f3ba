//! Parsers of SQL text that cannot be made to overflow the stack.
//!
//! Invariant: whatever the text, the syntax tree is shallow enough to be walked and dropped by recursion. sqlparser bounds
//! nesting; chains like `1+1+1+…` grow a tree without nesting, so the number of tokens that can lengthen one is bounded too.

use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::model::sql_error::SqlError;

/// Nesting of parentheses, functions and the like.
const NESTING: usize = 50;
/// Operators, keywords and names. Literals and commas do not count, so that a list of values may be long.
const MAX_TOKENS: usize = 2_000;

static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// A parser at the start of `text`; its errors become `SqlError::from_parser`.
pub fn parser(text: &str) -> Result<Parser<'static>, SqlError> {
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| SqlError::from_tokenizer(text, &error))?;
    let mut counted = tokens.iter().filter(|token| {
        !matches!(
            token.token,
            Token::Whitespace(_)
                | Token::Comma
                | Token::Number(..)
                | Token::SingleQuotedString(_)
                | Token::Placeholder(_)
        )
    });
    if let Some(surplus) = counted.nth(MAX_TOKENS) {
        let message = format!("the text is too long: more than {MAX_TOKENS} names, keywords and operators");
        return Err(SqlError::at(text, surplus.span, message));
    }
    Ok(Parser::new(&DIALECT).with_recursion_limit(NESTING).with_tokens_with_locations(tokens))
}

/// Parses a text that is one expression and nothing else.
pub fn parse_whole(text: &str) -> Result<ast::Expr, SqlError> {
    let mut parser = parser(text)?;
    let ast = parser.parse_expr().map_err(|error| SqlError::from_parser(text, error))?;
    expect_end(&parser, text)?;
    Ok(ast)
}

/// Refuses what stands behind the part that was parsed.
pub fn expect_end(parser: &Parser<'_>, text: &str) -> Result<(), SqlError> {
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(()),
        other => Err(SqlError::at(text, next.span, format!("expected the end, found {other}"))),
    }
}
