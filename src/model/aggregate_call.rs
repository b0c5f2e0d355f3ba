//! Recognises calls of the aggregates in SQL, for metric definitions and queries alike.
//!
//! Invariant: what is recognised can be computed; every clause that would change its meaning is an error at its place.

use arrow::datatypes::DataType;
use sqlparser::ast::{
    self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Spanned,
};

use super::expr::type_name;
use super::sql_error::SqlError;

/// The aggregates that can take rows back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    Count,
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
}

impl Function {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountDistinct => "count distinct",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// Digits behind the point of an average of values with `scale`: as many as money needs and four more.
pub fn avg_scale(scale: i8) -> i8 {
    (scale + 4).clamp(6, 38)
}

/// The type of an aggregate over arguments of one type; the error says what to do instead.
pub fn output_type(function: Function, argument: &DataType) -> Result<DataType, String> {
    let name = function.as_str();
    match (function, argument) {
        (Function::Count | Function::CountDistinct, _) => Ok(DataType::Int64),
        (Function::Sum, DataType::Int64) => Ok(DataType::Decimal128(38, 0)),
        (Function::Sum, DataType::Decimal128(_, scale)) => Ok(DataType::Decimal128(38, *scale)),
        (Function::Avg, DataType::Int64) => Ok(DataType::Decimal128(38, avg_scale(0))),
        (Function::Avg, DataType::Decimal128(_, scale)) => Ok(DataType::Decimal128(38, avg_scale(*scale))),
        (Function::Sum | Function::Avg, DataType::Float64) => Err(format!(
            "{name} of double would depend on the order of rows; cast it first, like {name}(cast(x as decimal(18,6)))"
        )),
        (Function::Sum | Function::Avg, other) => Err(format!("{name} needs numbers, not {}", type_name(other))),
        (Function::Min | Function::Max, DataType::Boolean | DataType::Null) => {
            Err(format!("{name} of {} is not supported", type_name(argument)))
        }
        (Function::Min | Function::Max, other) => Ok(other.clone()),
    }
}

/// `function(argument) filter (where filter)`; `count(*)` has no argument.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateCall {
    pub function: Function,
    pub argument: Option<ast::Expr>,
    pub filter: Option<ast::Expr>,
}

/// The name of a function that is called by one plain name, in lower case.
pub fn function_name(call: &ast::Function) -> Option<String> {
    match call.name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => Some(name.value.to_ascii_lowercase()),
        _ => None,
    }
}

impl AggregateCall {
    /// `None` if the function is no aggregate.
    pub fn recognise(call: &ast::Function, text: &str) -> Result<Option<Self>, SqlError> {
        let Some(name) = function_name(call) else { return Ok(None) };
        let function = match name.as_str() {
            "count" => Function::Count,
            "sum" => Function::Sum,
            "avg" => Function::Avg,
            "min" => Function::Min,
            "max" => Function::Max,
            _ => return Ok(None),
        };
        let fail = |message: String| Err(SqlError::at(text, call.span(), message));
        if call.over.is_some() {
            return fail(format!("{name}(…) over (…) is not supported: there are no window functions"));
        }
        if !call.within_group.is_empty() || call.null_treatment.is_some() || call.uses_odbc_syntax {
            return fail(format!("this form of {name}(…) is not supported"));
        }
        let FunctionArguments::List(list) = &call.args else { return fail(format!("{name} needs an argument")) };
        if !list.clauses.is_empty() {
            return fail(format!("{name}(…) takes one argument and no clauses"));
        }
        let [FunctionArg::Unnamed(argument)] = list.args.as_slice() else {
            return fail(format!("{name} takes one argument"));
        };
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        let argument = match argument {
            FunctionArgExpr::Expr(argument) => Some(argument.clone()),
            FunctionArgExpr::Wildcard if function == Function::Count && !distinct => None,
            _ => return fail(format!("{name}(*) is not supported; name a column")),
        };
        let function = match function {
            Function::Count if distinct => Function::CountDistinct,
            Function::Sum | Function::Avg if distinct => {
                return fail(format!("{name}(distinct …) is not supported; only count can be distinct"));
            }
            other => other,
        };
        Ok(Some(Self { function, argument, filter: call.filter.as_deref().cloned() }))
    }
}
