//! The compiled form of an expression: a tree whose nodes know their type.
//!
//! Invariant: operands already have the types that their node's kernel needs; conversions are nodes of their own.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::time::{Field, Interval, Unit};
use super::types::{Operator, exact};

#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub node: Node,
    pub data_type: DataType,
    pub nullable: bool,
    /// Some value of the operands makes it an error, so it must see only the rows that need it.
    pub can_fail: bool,
    /// The same for all rows at all times, so that it can be computed once, when compiled.
    pub constant: bool,
}

/// How two values are compared; the last two take null for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Distinct,
    NotDistinct,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Half away from zero.
    Nearest,
    Down,
    Up,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextFunction {
    Lower,
    Upper,
    Length,
    Trim,
    /// Text, first character (from 1), number of characters.
    Substring,
    Concat,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Column(usize),
    /// One value.
    Literal(ArrayRef),
    /// Zero-based.
    Param(usize),
    Now,
    /// A time literal without offset: an instant only the calendar knows.
    Local(i64),
    Convert(Box<Typed>),
    Arithmetic(Operator, Box<Typed>, Box<Typed>),
    Negate(Box<Typed>),
    Absolute(Box<Typed>),
    /// Digits behind the point to keep; negative: before it.
    Round(Rounding, Box<Typed>, i32),
    Compare(Comparison, Box<Typed>, Box<Typed>),
    And(Vec<Typed>),
    Or(Vec<Typed>),
    Not(Box<Typed>),
    IsNull(Box<Typed>),
    /// Equal to a bool; null is not.
    Is(bool, Box<Typed>),
    /// Value, low, high.
    Between(Box<[Typed; 3]>),
    InList(Box<Typed>, Vec<Typed>),
    Like {
        value: Box<Typed>,
        pattern: Box<Typed>,
        ignore_case: bool,
    },
    Case {
        operand: Option<Box<Typed>>,
        branches: Vec<(Typed, Typed)>,
        otherwise: Option<Box<Typed>>,
    },
    Coalesce(Vec<Typed>),
    /// `common` is the type in which they are compared; `other` has it already.
    NullIf {
        value: Box<Typed>,
        other: Box<Typed>,
        common: DataType,
    },
    Text(TextFunction, Vec<Typed>),
    /// A timestamp and by how much it is moved.
    Shift(Box<Typed>, Interval),
    Truncate(Unit, Box<Typed>),
    Extract(Field, Box<Typed>),
}

impl Node {
    pub(super) fn children(&self) -> Vec<&Typed> {
        match self {
            Self::Column(_) | Self::Literal(_) | Self::Param(_) | Self::Now | Self::Local(_) => Vec::new(),
            Self::Convert(one)
            | Self::Negate(one)
            | Self::Absolute(one)
            | Self::Round(_, one, _)
            | Self::Not(one)
            | Self::IsNull(one)
            | Self::Is(_, one)
            | Self::Shift(one, _)
            | Self::Truncate(_, one)
            | Self::Extract(_, one) => vec![one.as_ref()],
            Self::Arithmetic(_, left, right) | Self::Compare(_, left, right) => vec![left.as_ref(), right.as_ref()],
            Self::Like { value, pattern, .. } => vec![value.as_ref(), pattern.as_ref()],
            Self::And(all) | Self::Or(all) | Self::Coalesce(all) | Self::Text(_, all) => all.iter().collect(),
            Self::NullIf { value, other, .. } => vec![value.as_ref(), other.as_ref()],
            Self::Between(three) => three.iter().collect(),
            Self::InList(value, list) => std::iter::once(value.as_ref()).chain(list).collect(),
            Self::Case { operand, branches, otherwise } => {
                let branches = branches.iter().flat_map(|(condition, result)| [condition, result]);
                operand.as_deref().into_iter().chain(branches).chain(otherwise.as_deref()).collect()
            }
        }
    }

    /// Can it fail though its operands did not?
    fn fails_itself(&self, data_type: &DataType) -> bool {
        match self {
            Self::Convert(from) => !is_widening(&from.data_type, data_type),
            Self::Arithmetic(..) | Self::Negate(_) | Self::Absolute(_) => *data_type != DataType::Float64,
            Self::Round(_, from, _) => from.data_type != DataType::Float64,
            Self::Shift(..) => true,
            _ => false,
        }
    }

    /// Does it depend on rows, parameters, the time or the zone?
    fn varies(&self, data_type: &DataType) -> bool {
        match self {
            Self::Column(_) | Self::Param(_) | Self::Now | Self::Local(_) => true,
            Self::Shift(..) | Self::Truncate(..) | Self::Extract(..) => true,
            // Text and dates become timestamps by the zone's clocks, and the other way round.
            Self::Convert(from) => {
                matches!(from.data_type, DataType::Timestamp(..)) || matches!(data_type, DataType::Timestamp(..))
            }
            _ => false,
        }
    }
}

/// Every value of `from` fits `to`.
fn is_widening(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (same, other) if same == other => true,
        (DataType::Null, _) | (_, DataType::Utf8) => true,
        (DataType::Int64 | DataType::Decimal128(..), DataType::Float64) => true,
        (DataType::Int64, DataType::Boolean) | (DataType::Boolean, DataType::Int64) => true,
        (DataType::Date32, DataType::Timestamp(..)) | (DataType::Timestamp(..), DataType::Date32) => true,
        (from, DataType::Decimal128(precision, scale)) => exact(from).is_some_and(|(p, s)| {
            s <= *scale && i32::from(p) - i32::from(s) <= i32::from(*precision) - i32::from(*scale)
        }),
        _ => false,
    }
}

impl Typed {
    pub(super) fn new(node: Node, data_type: DataType, nullable: bool) -> Self {
        let (mut can_fail, mut constant) = (node.fails_itself(&data_type), !node.varies(&data_type));
        for child in node.children() {
            can_fail |= child.can_fail;
            constant &= child.constant;
        }
        Self { node, data_type, nullable, can_fail, constant }
    }

    pub(super) fn literal(value: ArrayRef) -> Self {
        let (data_type, nullable) =
            (value.data_type().clone(), value.is_null(0) || *value.data_type() == DataType::Null);
        Self::new(Node::Literal(value), data_type, nullable)
    }

    pub(super) fn collect_columns(&self, columns: &mut Vec<usize>) {
        if let Node::Column(column) = self.node {
            columns.push(column);
        }
        self.node.children().into_iter().for_each(|child| child.collect_columns(columns));
    }

    pub(super) fn depends_on_now(&self) -> bool {
        matches!(self.node, Node::Now) || self.node.children().into_iter().any(Self::depends_on_now)
    }
}
