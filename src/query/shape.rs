//! A query's text as tokens: limits that hold before anything recursive looks at it, and its shape, which is the text
//! with the literals taken out.
//!
//! Invariant: two texts have one shape only if they are the same tokens but for the values of literals of the same
//! types; a literal that decides what a query means (a unit, an ordinal, a type's size) stays in the shape.

use std::fmt::Write as _;

use arrow::array::ArrayRef;
use sqlparser::ast::Value;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use super::settings::Settings;
use crate::model::expr::{literal_array, type_name};
use crate::model::sql_error::SqlError;

/// The dialect of queries: closest to what people know from Postgres.
pub const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// The limits of a text.
#[derive(Debug, Clone, Copy)]
pub struct TextLimits {
    /// Names, keywords and signs: what can lengthen a syntax tree. Values and commas do not count, so that a list of
    /// values may be long.
    pub tokens: usize,
    pub nesting: usize,
}

impl From<&Settings> for TextLimits {
    fn from(settings: &Settings) -> Self {
        Self { tokens: settings.tokens_limit, nesting: settings.nesting_limit }
    }
}

/// A text's tokens (without white space), its shape and its literals.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The tokens as they stand in the text.
    pub tokens: Vec<TokenWithSpan>,
    pub shape: String,
    /// The values of the literals, each an array of length 1.
    pub literals: Vec<ArrayRef>,
    /// Where they stand in `tokens`.
    places: Vec<usize>,
}

impl Shape {
    pub fn of(text: &str, limits: TextLimits) -> Result<Self, SqlError> {
        let mut tokens = Vec::new();
        Tokenizer::new(&DIALECT, text)
            .tokenize_with_location_into_buf(&mut tokens)
            .map_err(|error| SqlError::from_tokenizer(text, &error))?;
        tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
        check(text, &tokens, limits)?;
        Ok(Self::lift(tokens))
    }

    fn lift(tokens: Vec<TokenWithSpan>) -> Self {
        let mut shape = String::with_capacity(tokens.len() * 8);
        let (mut literals, mut places) = (Vec::new(), Vec::new());
        let mut context = Context::default();
        for (place, token) in tokens.iter().enumerate() {
            let literal = match &token.token {
                Token::Number(text, false) if context.lifts_numbers() => Some(Value::Number(text.clone(), false)),
                Token::SingleQuotedString(text) if context.lifts_texts() => {
                    Some(Value::SingleQuotedString(text.clone()))
                }
                _ => None,
            };
            // What is no valid literal stays in the text, where the compiler points at it.
            match literal.and_then(|literal| literal_array(&literal).ok()) {
                Some(literal) => {
                    write!(shape, "${} ", type_name(literal.data_type())).expect("writing to a string does not fail");
                    literals.push(literal);
                    places.push(place);
                }
                None => write_token(&mut shape, &token.token),
            }
            context.pass(&token.token);
        }
        Self { tokens, shape, literals, places }
    }

    /// The tokens with placeholders `$1, $2, …` in place of literals.
    pub fn lifted(&self) -> Vec<TokenWithSpan> {
        let mut lifted = self.tokens.clone();
        for (index, place) in self.places.iter().enumerate() {
            lifted[*place].token = Token::Placeholder(format!("${}", index + 1));
        }
        lifted
    }
}

fn write_token(shape: &mut String, token: &Token) {
    match token {
        Token::Word(Word { value, quote_style: None, .. }) => shape.push_str(value),
        // With its length: quotes inside are not escaped when a token is shown.
        other => {
            let start = shape.len();
            write!(shape, "{other}").expect("writing to a string does not fail");
            if shape.len() - start > 3 {
                write!(shape, "#{}", shape.len() - start).expect("writing to a string does not fail");
            }
        }
    }
    shape.push(' ');
}

/// Where in a text we are, as far as it decides which literals may be taken out.
#[derive(Debug, Default)]
struct Context {
    depth: usize,
    /// In the list of `group by` or `order by`: numbers there are ordinals, and expressions must match as written.
    in_by: bool,
    /// The depth of the parenthesis that holds a type's size: `decimal(12, 2)`.
    in_size: Option<usize>,
    previous: Before,
    /// Before `previous`.
    earlier: Before,
}

/// What stood before a literal.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Before {
    #[default]
    Other,
    Parenthesis,
    /// `interval`, `date`, `timestamp`: the text that follows is part of the literal.
    Prefix,
    /// A function whose first argument names a unit.
    UnitFunction,
    /// A type that may have a size.
    SizedType,
}

impl Context {
    fn lifts_numbers(&self) -> bool {
        !self.in_by && self.in_size.is_none() && self.previous != Before::Prefix
    }

    fn lifts_texts(&self) -> bool {
        let unit = self.previous == Before::Parenthesis && self.earlier == Before::UnitFunction;
        !self.in_by && self.previous != Before::Prefix && !unit
    }

    fn pass(&mut self, token: &Token) {
        let before = match token {
            Token::LParen => {
                self.depth += 1;
                if self.previous == Before::SizedType {
                    self.in_size = Some(self.depth);
                }
                Before::Parenthesis
            }
            Token::RParen => {
                if self.in_size == Some(self.depth) {
                    self.in_size = None;
                }
                self.depth = self.depth.saturating_sub(1);
                Before::Other
            }
            Token::Word(word) => {
                if self.depth == 0 {
                    self.enter_clause(word.keyword);
                }
                Before::word(word)
            }
            _ => Before::Other,
        };
        (self.earlier, self.previous) = (self.previous, before);
    }

    fn enter_clause(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::GROUP | Keyword::ORDER => self.in_by = true,
            Keyword::HAVING | Keyword::LIMIT | Keyword::OFFSET | Keyword::WHERE | Keyword::FROM => self.in_by = false,
            _ => {}
        }
    }
}

impl Before {
    fn word(word: &Word) -> Self {
        match word.keyword {
            Keyword::INTERVAL | Keyword::DATE | Keyword::TIMESTAMP | Keyword::TIME => Self::Prefix,
            Keyword::DECIMAL
            | Keyword::NUMERIC
            | Keyword::DEC
            | Keyword::VARCHAR
            | Keyword::CHAR
            | Keyword::CHARACTER
            | Keyword::FLOAT => Self::SizedType,
            _ if word.value.eq_ignore_ascii_case("date_trunc") || word.value.eq_ignore_ascii_case("date_part") => {
                Self::UnitFunction
            }
            _ => Self::Other,
        }
    }
}

/// Refuses what may not come near the parser, with its place.
fn check(text: &str, tokens: &[TokenWithSpan], limits: TextLimits) -> Result<(), SqlError> {
    let refuse = |token: &TokenWithSpan, message: &str| Err(SqlError::at(text, token.span, message));
    let Some(first) = tokens.first() else {
        return Err(SqlError::at(text, Location::new(1, 1), "the query is empty"));
    };
    let value = |token: &Token| matches!(token, Token::Comma | Token::Number(..) | Token::SingleQuotedString(_));
    if let Some(token) = tokens.iter().filter(|token| !value(&token.token)).nth(limits.tokens) {
        return refuse(token, &format!("the query has more than {} names, keywords and signs", limits.tokens));
    }
    match keyword(first) {
        Some(Keyword::SELECT) => {}
        Some(Keyword::WITH) => return refuse(first, "common table expressions are not supported"),
        _ => return refuse(first, "only select is supported"),
    }
    let mut depth = 0usize;
    for token in &tokens[1..] {
        match &token.token {
            Token::LParen => {
                depth += 1;
                if depth > limits.nesting {
                    return refuse(token, &format!("parentheses are nested deeper than {}", limits.nesting));
                }
            }
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Placeholder(_) | Token::Question => {
                return refuse(token, "parameters are not supported: write the value in the text");
            }
            // Types can nest with these without a limit in the parser.
            Token::LBracket | Token::LBrace => return refuse(token, "brackets are not supported"),
            Token::Word(_) => match keyword(token) {
                Some(Keyword::SELECT) => {
                    return refuse(token, "one select only: subqueries and set operations are not supported");
                }
                Some(Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP) => {
                    return refuse(token, "arrays, maps and structs are not supported");
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

fn keyword(token: &TokenWithSpan) -> Option<Keyword> {
    match &token.token {
        Token::Word(word) => Some(word.keyword),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TextLimits = TextLimits { tokens: 1_000, nesting: 20 };

    fn shape(text: &str) -> Shape {
        Shape::of(text, LIMITS).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn texts_that_differ_in_values_only_have_one_shape() {
        let one = shape("select gmv * 0.50 from t where key = 42 and s = 'a'  -- yes\n limit 5");
        let two = shape("select gmv * 0.25 from t where key = 43 and s = 'b''c' limit 70");
        assert_eq!(one.shape, two.shape);
        let number = |digits: &str| Value::Number(digits.into(), false);
        let values = [number("0.25"), number("43"), Value::SingleQuotedString("b'c".into()), number("70")];
        assert_eq!(two.literals, values.iter().map(literal_array).collect::<Result<Vec<_>, _>>().expect("literals"));
    }

    #[test]
    fn texts_that_differ_in_types_names_or_meaning_have_different_shapes() {
        let texts = [
            "select a from t where b = 1",
            "select a from t where b = 1.5",
            "select a from t where b = 1.25",
            "select a from t where b = '1'",
            "select a from t where c = 1",
            "select a from t where \"b\" = 1",
            "select a from t where b = 99999999999999999999",
            "select a from t group by 1",
            "select a from t group by 2",
            "select a from t order by 1",
            "select date_trunc('hour', a) from t",
            "select date_trunc('day', a) from t",
            "select a + interval '1 day' from t",
            "select a + interval '2 day' from t",
            "select cast(a as decimal(12, 2)) from t",
            "select cast(a as decimal(12, 3)) from t",
            "select date '2026-01-01' from t",
            "select date '2026-01-02' from t",
        ];
        let mut shapes: Vec<_> = texts.iter().map(|text| shape(text).shape).collect();
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), texts.len());
    }

    #[test]
    fn what_the_parser_may_not_see_is_refused_at_its_place() {
        let many = format!("select {}", "a,".repeat(1_000));
        let deep = format!("select {}", "(".repeat(30));
        for (text, column, message) in [
            ("", 1, "empty"),
            ("  -- nothing", 1, "empty"),
            ("insert into t values (1)", 1, "only select"),
            ("with a as (select 1) select 1", 1, "common table expressions"),
            ("select a from t where b = $1", 27, "parameters"),
            ("select (select 1)", 9, "one select only"),
            ("select a from t union select a from t", 23, "one select only"),
            ("select cast(a as array<int>)", 18, "arrays"),
            ("select 'abc", 8, "nterminated"),
            (many.as_str(), 2_006, "more than 1000 names"),
            (deep.as_str(), 28, "nested deeper than 20"),
        ] {
            let error = Shape::of(text, LIMITS).expect_err(text);
            assert!(error.message.contains(message), "{error}");
            assert_eq!(error.column, column, "{error}");
        }
    }
}
