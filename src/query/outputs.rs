//! The columns of an answer, and how `group by` and `order by` refer to them.
//!
//! Invariant: a number names the place of a column, a name the column that was given it with `as`; nothing else refers.

use arrow::datatypes::Schema;
use sqlparser::ast::{Expr, Ident, Value, ValueWithSpan};

use super::parse::Item;
use super::rewrite::bare;
use crate::model::aggregate_call::function_name;
use crate::model::sql_error::SqlError;

/// A column of the answer.
pub struct Output {
    pub name: String,
    /// The name was given with `as`.
    named: bool,
    pub ast: Expr,
}

/// An entry of `order by`, its place in the answer found or its expression.
pub enum Ordered {
    Output(usize),
    Expr(Expr),
}

impl Ordered {
    pub fn expr(&self) -> Option<&Expr> {
        match self {
            Self::Expr(expr) => Some(expr),
            Self::Output(_) => None,
        }
    }

    pub fn expr_mut(&mut self) -> Option<&mut Expr> {
        match self {
            Self::Expr(expr) => Some(expr),
            Self::Output(_) => None,
        }
    }
}

/// All columns of an answer, in order.
pub struct Outputs<'a> {
    text: &'a str,
    pub all: Vec<Output>,
}

impl<'a> Outputs<'a> {
    /// `*` stands for all columns of `schema`.
    pub fn of(text: &'a str, items: Vec<Item>, schema: &Schema) -> Self {
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::All(span) => all.extend(schema.fields().iter().map(|field| {
                    let column = Ident { value: field.name().clone(), quote_style: None, span };
                    Output { name: field.name().clone(), named: false, ast: Expr::Identifier(column) }
                })),
                Item::Expr { expr, alias } => {
                    let named = alias.is_some();
                    let name = alias.map(|alias| alias.value).or_else(|| name_of(&expr));
                    let name = name.unwrap_or_else(|| format!("column{}", all.len() + 1));
                    all.push(Output { name, named, ast: expr });
                }
            }
        }
        Self { text, all }
    }

    /// The place of the column that was given a name.
    pub fn named(&self, name: &Ident) -> Option<usize> {
        self.all.iter().position(|output| output.named && output.name.eq_ignore_ascii_case(&name.value))
    }

    /// The place that a constant in `group by` or `order by` names.
    pub fn ordinal(&self, value: &ValueWithSpan, clause: &str) -> Result<usize, SqlError> {
        let count = self.all.len();
        let number = match &value.value {
            Value::Number(digits, _) => digits.parse::<usize>().ok(),
            _ => None,
        };
        number.filter(|number| (1..=count).contains(number)).map(|number| number - 1).ok_or_else(|| {
            let message = format!("{clause} a constant must be the place of a selected column: 1 to {count}");
            SqlError::at(self.text, value.span, message)
        })
    }

    /// `order by` may name the place or the name of an output, or be an expression.
    pub fn ordered(&self, expr: Expr) -> Result<Ordered, SqlError> {
        let index = match bare(&expr) {
            Expr::Value(value) => Some(self.ordinal(value, "order by")?),
            Expr::Identifier(name) => self.named(name),
            _ => None,
        };
        let same = || self.all.iter().position(|output| bare(&output.ast) == bare(&expr));
        match index.or_else(same) {
            Some(index) => Ok(Ordered::Output(index)),
            None => Ok(Ordered::Expr(expr)),
        }
    }
}

/// The name of a column without alias: as Postgres.
fn name_of(expr: &Expr) -> Option<String> {
    match bare(expr) {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::Function(call) => function_name(call),
        Expr::Cast { expr, .. } => name_of(expr),
        Expr::Case { .. } => Some("case".into()),
        _ => None,
    }
}
