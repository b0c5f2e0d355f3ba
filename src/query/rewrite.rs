//! Walks over syntax trees: how deep one is, and parts replaced by others.
//!
//! Invariant: every part of an expression that the compiler would look at is visited; only trees that `check_depth` let
//! through are walked by recursion.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned};
use sqlparser::tokenizer::Span;

use crate::model::sql_error::SqlError;

/// The direct parts of an expression. Forms that no query may have are leaves: the compiler refuses them.
fn children(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::Nested(one)
        | Expr::IsNull(one)
        | Expr::IsNotNull(one)
        | Expr::IsTrue(one)
        | Expr::IsNotTrue(one)
        | Expr::IsFalse(one)
        | Expr::IsNotFalse(one)
        | Expr::IsUnknown(one)
        | Expr::IsNotUnknown(one)
        | Expr::UnaryOp { expr: one, .. }
        | Expr::Cast { expr: one, .. }
        | Expr::Extract { expr: one, .. }
        | Expr::Ceil { expr: one, .. }
        | Expr::Floor { expr: one, .. }
        | Expr::Collate { expr: one, .. } => vec![one],
        Expr::Interval(interval) => vec![&mut interval.value],
        Expr::AtTimeZone { timestamp, time_zone } => vec![timestamp, time_zone],
        Expr::BinaryOp { left, right, .. }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right) => {
            vec![left, right]
        }
        Expr::Between { expr, low, high, .. } => vec![expr, low, high],
        Expr::InList { expr, list, .. } => std::iter::once(&mut **expr).chain(list).collect(),
        Expr::Like { expr, pattern, escape_char, .. } | Expr::ILike { expr, pattern, escape_char, .. } => {
            [Some(expr), Some(pattern), escape_char.as_mut()].into_iter().flatten().map(|part| &mut **part).collect()
        }
        Expr::Position { expr, r#in } => vec![expr, r#in],
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            let parts = [Some(expr), substring_from.as_mut(), substring_for.as_mut()];
            parts.into_iter().flatten().map(|part| &mut **part).collect()
        }
        Expr::Trim { expr, trim_what, .. } => {
            [Some(expr), trim_what.as_mut()].into_iter().flatten().map(|part| &mut **part).collect()
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            let branches = conditions.iter_mut().flat_map(|when| [&mut when.condition, &mut when.result]);
            let ends = operand.iter_mut().chain(else_result).map(|part| &mut **part);
            branches.chain(ends).collect()
        }
        Expr::Tuple(parts) => parts.iter_mut().collect(),
        Expr::Function(function) => {
            let arguments = match &mut function.args {
                FunctionArguments::List(list) => list.args.as_mut_slice(),
                _ => &mut [],
            };
            let arguments = arguments.iter_mut().filter_map(|argument| match argument {
                FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } | FunctionArg::Unnamed(arg) => {
                    if let FunctionArgExpr::Expr(expr) = arg {
                        Some(expr)
                    } else {
                        None
                    }
                }
            });
            arguments.chain(function.filter.as_deref_mut()).collect()
        }
        _ => Vec::new(),
    }
}

/// Refuses trees that are too deep to be walked by recursion. Chains such as `a + a + a …` make deep ones without nesting.
pub fn check_depth(text: &str, expr: &mut Expr, limit: usize) -> Result<(), SqlError> {
    let mut level = vec![expr];
    for _ in 0..limit {
        level = level.into_iter().flat_map(children).collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    let place = level.into_iter().next().map_or_else(Span::empty, leaf_span);
    let message = format!(
        "the expression is a tree of more than {limit} levels; long chains of 'or' can be written with 'in (…)'"
    );
    Err(SqlError::at(text, place, message))
}

/// The place of the first leaf below: asking a deep tree for its place would recurse.
fn leaf_span(mut expr: &mut Expr) -> Span {
    loop {
        let is_leaf = children(expr).is_empty();
        if is_leaf {
            return expr.span();
        }
        expr = children(expr).swap_remove(0);
    }
}

/// Replaces parts from the top down: where `replacement` gives an expression it takes the part's place, else the part's
/// own parts are visited.
pub fn replace(
    expr: &mut Expr,
    replacement: &mut impl FnMut(&Expr) -> Result<Option<Expr>, SqlError>,
) -> Result<(), SqlError> {
    if let Some(new) = replacement(expr)? {
        *expr = new;
        return Ok(());
    }
    children(expr).into_iter().try_for_each(|child| replace(child, replacement))
}

/// Does the predicate hold for the expression or a part of it?
pub fn any(expr: &Expr, predicate: &mut impl FnMut(&Expr) -> Result<bool, SqlError>) -> Result<bool, SqlError> {
    let mut found = false;
    replace(&mut expr.clone(), &mut |part| {
        found = found || predicate(part)?;
        Ok(None)
    })?;
    Ok(found)
}

/// Without the parentheses around it.
pub fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}
