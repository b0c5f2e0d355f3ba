//! Plans of texts seen before: by exact text, and by shape for texts that differ in literals only.
//!
//! Invariant: taking literals out never changes what a query means: where a plan cannot be made without knowing a value,
//! the text is planned as it stands. Memory is bounded.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use hashbrown::DefaultHashBuilder;
use moka::sync::Cache;

use super::QueryError;
use super::parse::parse;
use super::plan::Plan;
use super::planner::plan;
use super::settings::Settings;
use super::shape::{Shape, TextLimits};
use crate::model::catalog::Catalog;

/// A plan with the values of one text.
#[derive(Debug)]
pub struct Prepared {
    pub plan: Arc<Plan>,
    /// Values of the plan's parameters, each an array of length 1.
    pub params: Vec<ArrayRef>,
}

/// The plans of one catalog.
pub struct Plans {
    catalog: Arc<Catalog>,
    limits: TextLimits,
    sql_limit: usize,
    texts: Cache<Arc<str>, Arc<Prepared>, DefaultHashBuilder>,
    shapes: Cache<String, Arc<Plan>, DefaultHashBuilder>,
}

/// What a plan takes beside its text, roughly: trees, schemas, names.
const PLAN_BYTES: u32 = 8 << 10;
/// What a text's parameters and entry take, roughly.
const TEXT_BYTES: u32 = 1 << 10;

fn weight(text: &str, more: u32) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX).saturating_mul(4).saturating_add(more)
}

impl Plans {
    pub fn new(catalog: Arc<Catalog>, settings: &Settings) -> Self {
        let half = settings.plan_memory.0 / 2;
        let texts = Cache::builder().max_capacity(half).weigher(|text: &Arc<str>, prepared: &Arc<Prepared>| {
            // A plan made for this text alone is kept alive by this entry.
            weight(text, TEXT_BYTES + if prepared.params.is_empty() { PLAN_BYTES } else { 0 })
        });
        let shapes =
            Cache::builder().max_capacity(half).weigher(|shape: &String, _: &Arc<Plan>| weight(shape, PLAN_BYTES));
        Self {
            catalog,
            limits: settings.into(),
            sql_limit: settings.sql_limit.bytes(),
            texts: texts.build_with_hasher(DefaultHashBuilder::default()),
            shapes: shapes.build_with_hasher(DefaultHashBuilder::default()),
        }
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
        let prepared = match self.shapes.get(&shape.shape) {
            Some(plan) => Prepared { plan, params: shape.literals },
            None => self.prepare_shape(text, shape)?,
        };
        let prepared = Arc::new(prepared);
        self.texts.insert(text.into(), prepared.clone());
        Ok(prepared)
    }

    fn prepare_shape(&self, text: &str, shape: Shape) -> Result<Prepared, QueryError> {
        let types = shape.literals.iter().map(|literal| literal.data_type().clone()).collect();
        let general = parse(text, shape.lifted(), self.limits.nesting).map_err(QueryError::from);
        if let Ok(plan) = general.and_then(|query| self.plan(text, query, types)) {
            let plan = Arc::new(plan);
            self.shapes.insert(shape.shape, plan.clone());
            return Ok(Prepared { plan, params: shape.literals });
        }
        // Errors name values, and some places need one: the text as it stands decides.
        let query = parse(text, shape.tokens, self.limits.nesting)?;
        Ok(Prepared { plan: Arc::new(self.plan(text, query, Vec::new())?), params: Vec::new() })
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
