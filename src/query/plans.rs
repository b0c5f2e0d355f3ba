//! Plans of texts seen before: by exact text, and by shape for texts that differ in literals only.
//!
//! Invariant: taking literals out never changes what a query means: where a plan cannot be made without knowing a value,
//! the text is planned as it stands. Memory is bounded.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::QueryError;
use super::memo::Memo;
use super::parse::parse;
use super::plan::{Bound, Plan};
use super::planner::plan;
use super::settings::Settings;
use super::shape::{Shape, TextLimits};
use crate::model::catalog::Catalog;
use crate::model::expr::Context;
use crate::model::window::Calendar;

/// A plan with the values of one text.
#[derive(Debug)]
pub struct Prepared {
    pub plan: Arc<Plan>,
    /// Values of the plan's parameters, each an array of length 1.
    pub params: Vec<ArrayRef>,
    /// The plan's constants, where they are the same at all times.
    bound: Option<Bound>,
}

impl Prepared {
    fn new(plan: Arc<Plan>, params: Vec<ArrayRef>, calendar: &Calendar) -> Self {
        let context = Context { params: &params, now_us: 0, calendar };
        // What cannot be bound is an error of each query, at its time.
        let bound = if plan.binds_now() { None } else { plan.bind(&context).ok() };
        Self { plan, params, bound }
    }

    /// Everything that does not depend on rows.
    pub fn bind(&self, context: &Context<'_>) -> Result<Bound, QueryError> {
        match &self.bound {
            Some(bound) => Ok(bound.clone()),
            None => self.plan.bind(context),
        }
    }
}

/// The plans of one catalog.
pub struct Plans {
    catalog: Arc<Catalog>,
    limits: TextLimits,
    sql_limit: usize,
    texts: Memo<Arc<str>, Arc<Prepared>>,
    shapes: Memo<String, Arc<Plan>>,
}

/// What a plan takes beside its text, roughly: trees, schemas, names.
const PLAN_BYTES: usize = 8 << 10;
/// What a text's entry takes beside the text, roughly.
const TEXT_BYTES: usize = 1 << 10;
/// What a literal takes as a value, roughly: an array, and perhaps a key.
const VALUE_BYTES: usize = 256;

fn text_bytes(text: &str) -> usize {
    text.len() * 4 + TEXT_BYTES
}

impl Plans {
    pub fn new(catalog: Arc<Catalog>, settings: &Settings) -> Self {
        let half = settings.plan_memory.bytes() / 2;
        let (texts, shapes) = (Memo::new(half), Memo::new(half));
        Self { catalog, limits: settings.into(), sql_limit: settings.sql_limit.bytes(), texts, shapes }
    }

    /// The plan of a text, made only if neither text nor shape is known.
    pub fn prepare(&self, text: &str) -> Result<Arc<Prepared>, QueryError> {
        if text.len() > self.sql_limit {
            return Err(QueryError::TooLong { found: text.len(), limit: self.sql_limit });
        }
        if let Some(known) = self.texts.get(text) {
            return Ok(known);
        }
        let shape = Shape::of(text, self.limits)?;
        let (plan, params) = match self.shapes.get(shape.shape.as_str()) {
            Some(plan) => (plan, shape.literals),
            None => self.plan_shape(text, shape)?,
        };
        // A plan made for this text alone is kept alive by its entry.
        let more_bytes = if params.is_empty() { PLAN_BYTES } else { params.len() * VALUE_BYTES };
        let prepared = Arc::new(Prepared::new(plan, params, self.catalog.calendar()));
        self.texts.insert(text.into(), prepared.clone(), text_bytes(text) + more_bytes);
        Ok(prepared)
    }

    fn plan_shape(&self, text: &str, shape: Shape) -> Result<(Arc<Plan>, Vec<ArrayRef>), QueryError> {
        let types = shape.literals.iter().map(|literal| literal.data_type().clone()).collect();
        let general = parse(text, shape.lifted(), self.limits.nesting).map_err(QueryError::from);
        if let Ok(plan) = general.and_then(|query| self.plan(text, query, types)) {
            let plan = Arc::new(plan);
            let bytes = text_bytes(&shape.shape) + PLAN_BYTES;
            self.shapes.insert(shape.shape, plan.clone(), bytes);
            return Ok((plan, shape.literals));
        }
        // Errors name values, and some places need one: the text as it stands decides.
        let query = parse(text, shape.tokens, self.limits.nesting)?;
        Ok((Arc::new(self.plan(text, query, Vec::new())?), Vec::new()))
    }

    /// What is wrong with a value in a text, with its place if the compiler can tell; else `error` itself.
    pub fn explain(&self, text: &str, error: QueryError) -> QueryError {
        let QueryError::Value(_) = error else { return error };
        let query = Shape::of(text, self.limits).and_then(|shape| parse(text, shape.tokens, self.limits.nesting));
        match query.map_err(QueryError::from).and_then(|query| self.plan(text, query, Vec::new())) {
            Err(placed @ QueryError::Sql(_)) => placed,
            _ => error,
        }
    }

    fn plan(&self, text: &str, query: super::parse::Query, types: Vec<DataType>) -> Result<Plan, QueryError> {
        plan(text, query, types, &self.catalog, self.limits.nesting)
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
}
