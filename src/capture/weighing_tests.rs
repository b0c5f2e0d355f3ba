use super::*;
use crate::capture::meaning::Declared;
use crate::model::rows::{POSITION, WEIGHT};
use crate::model::schema::TableConfig;
use arrow::datatypes::{Decimal128Type, Int64Type};
use proptest::prelude::*;

fn table() -> Arc<Table> {
    let text = "name = 'orders'\nkey = ['id']\npartition_by = 'shop'\ntime = 'at'\n\
        columns = { id = 'int', shop = 'text', amount = 'decimal(12,2)', open = 'bool', day = 'date', at = 'timestamp' }";
    Arc::new(Table::new(&toml::from_str::<TableConfig>(text).expect("a table")).expect("it is consistent"))
}

fn layout(table: &Table) -> Layout {
    let columns = [
        ("id", "int"),
        ("shop", "text"),
        ("amount", "decimal(12,2)"),
        ("open", "bit(1)"),
        ("day", "date"),
        ("at", "datetime"),
    ];
    let declared = columns.map(|(name, sql_type)| Declared {
        name: name.into(),
        sql_type: sql_type.into(),
        charset: Some("utf8mb4".into()),
    });
    Layout::new(table, "shop.orders", declared.to_vec()).expect("it fits")
}

proptest! {
    #[test]
    fn each_partition_gets_its_rows_in_order_with_weights_and_positions(
        rows in prop::collection::vec((any::<i64>(), "[a-e]{0,2}", any::<bool>(), prop::option::of(0i64..1_000_000)), 0..60),
    ) {
        let table = table();
        let layout = layout(&table);
        let mut weighing = Weighing::new(table, 5, Tz::UTC);
        for (index, (id, shop, is_gone, at)) in rows.iter().enumerate() {
            let amount = Cell::Decimal { unscaled: i128::from(*id % 1_000), scale: 1 };
            let at = at.map_or(Cell::Null, |at| Cell::Instant((at + 1) * 3_600_000_000));
            let cells = [Cell::Int(*id), Cell::Text(shop), amount, Cell::Null, Cell::Null, at];
            let weight = if *is_gone { -1 } else { 1 };
            prop_assert_eq!(weighing.push(&layout, &cells, weight, Position(index as u128 + 7)), Ok(()));
        }
        prop_assert_eq!(weighing.rows(), rows.len());
        let mut seen = 0;
        for part in weighing.cut() {
            let partition_of = |shop: &str| partition_of_text(shop, 5, &mut Vec::new());
            let expected: Vec<usize> = (0..rows.len()).filter(|row| partition_of(&rows[*row].1) == part.partition).collect();
            let int = |name: &str| part.rows.column_by_name(name).expect("a column").as_primitive::<Int64Type>().values().to_vec();
            let positions = part.rows.column_by_name(POSITION).expect("a column").as_primitive::<Decimal128Type>().values().to_vec();
            prop_assert_eq!(positions, expected.iter().map(|row| *row as i128 + 7).collect::<Vec<_>>());
            prop_assert_eq!(int("id"), expected.iter().map(|row| rows[*row].0).collect::<Vec<_>>());
            prop_assert_eq!(int(WEIGHT), expected.iter().map(|row| if rows[*row].2 { -1 } else { 1 }).collect::<Vec<_>>());
            let hours = expected.iter().filter_map(|row| rows[*row].3.map(|at| at as i32 + 1));
            prop_assert_eq!(part.hours, hours.clone().min().zip(hours.max()));
            seen += expected.len();
        }
        prop_assert_eq!((seen, weighing.rows(), weighing.bytes()), (rows.len(), 0, 0));
    }
}

#[test]
fn a_null_where_none_may_be_names_its_column() {
    let table = table();
    let layout = layout(&table);
    let mut weighing = Weighing::new(table, 5, Tz::UTC);
    let cells = [Cell::Int(1), Cell::Null, Cell::Null, Cell::Null, Cell::Null, Cell::Null];
    assert_eq!(weighing.push(&layout, &cells, 1, Position(1)), Err((1, FitError::Null)));
}
