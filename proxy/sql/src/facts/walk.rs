//! Everything in a statement's tree that bears on where it may run, wherever it stands.
//!
//! The tree has some 270 kinds of nodes, more with each version. It is not walked by a list of them, which would miss some:
//! it is walked as a serialiser sees it, which is all of it by construction. Depth needs no care: what pg_query hands over
//! has been decoded with a limit of a hundred levels.

use std::fmt::Error;

use pg_query::protobuf::LockClauseStrength;
use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};

use crate::functions::Name;
use crate::route::Lock;

/// What has been found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Functions that are called.
    pub(super) functions: Vec<Name>,
    /// Tables and views, also the names of a WITH clause.
    pub(super) tables: Vec<Name>,
    /// Names of WITH clauses.
    with: Vec<Box<str>>,
    /// Operators.
    pub(super) operators: Vec<Name>,
    /// Types that something is cast to, or that are named otherwise.
    pub(super) types: Vec<Name>,
    /// The strongest locking clause.
    pub(super) lock: Option<Lock>,
    /// `SELECT … INTO`.
    pub(super) into: bool,
    /// The command of a statement that writes, the last one that was found.
    pub(super) writes: Option<&'static str>,
    /// An `EXECUTE`.
    pub(super) executes: bool,
}

/// Looks through a node and all that is below it.
pub(super) fn walk(node: &impl Serialize) -> Option<Found> {
    let mut walk = Walk::default();
    node.serialize(&mut walk).ok()?;
    Some(walk.found)
}

impl Found {
    /// The tables and views alone.
    pub(super) fn own_tables(&self) -> Vec<Name> {
        let own = |table: &&Name| table.schema.is_some() || !self.with.contains(&table.name);
        self.tables.iter().filter(own).cloned().collect()
    }

    /// BETWEEN stands for two comparisons.
    fn between(&mut self, operator: &Name) {
        if operator.name.contains("BETWEEN") {
            for name in ["<", "<=", ">", ">="] {
                self.operator(name);
            }
        }
    }

    fn operator(&mut self, name: &str) {
        put(
            &mut self.operators,
            Name {
                schema: None,
                name: name.into(),
            },
        );
    }
}

fn put(names: &mut Vec<Name>, name: Name) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// From its parts, as a list has them.
fn qualified(mut parts: Vec<String>) -> Option<Name> {
    let name = parts.pop()?.into();
    Some(Name {
        schema: parts.pop().map(Into::into),
        name,
    })
}

#[derive(Default)]
struct Walk {
    found: Found,
    /// The contents of `String` nodes, while a name is put together.
    strings: Option<Vec<String>>,
    /// The last text and the last number that were passed.
    text: String,
    number: i32,
}

impl Walk {
    fn text_of<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<Box<str>, Error> {
        self.text.clear();
        value.serialize(&mut *self)?;
        Ok(self.text.as_str().into())
    }

    /// A name in parts; none where the list is empty.
    fn name_of<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<Option<Name>, Error> {
        self.strings = Some(Vec::new());
        value.serialize(&mut *self)?;
        Ok(qualified(self.strings.take().ok_or(Error)?))
    }
}

/// Which node is being walked, as far as that matters.
enum Of {
    Function { name: Option<Name> },
    Operator,
    Type,
    Table { schema: Box<str>, name: Box<str> },
    With,
    Locking,
    Text,
    Other,
}

struct Fields<'a> {
    walk: &'a mut Walk,
    of: Of,
}

impl SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        match (&mut self.of, field) {
            (Of::Function { name }, "funcname") => *name = self.walk.name_of(value)?,
            (Of::Operator, "name" | "oper_name" | "use_op") => {
                if let Some(name) = self.walk.name_of(value)? {
                    self.walk.found.between(&name);
                    put(&mut self.walk.found.operators, name);
                }
            }
            (Of::Type, "names") => {
                if let Some(name) = self.walk.name_of(value)? {
                    put(&mut self.walk.found.types, name);
                }
            }
            (Of::Table { schema, .. }, "schemaname") => *schema = self.walk.text_of(value)?,
            (Of::Table { name, .. }, "relname") => *name = self.walk.text_of(value)?,
            (Of::With, "ctename") => {
                let name = self.walk.text_of(value)?;
                self.walk.found.with.push(name);
            }
            (Of::Locking, "strength") => {
                value.serialize(&mut *self.walk)?;
                let lock = lock(self.walk.number);
                self.walk.found.lock = self.walk.found.lock.max(Some(lock));
            }
            (Of::Text, "sval") => {
                value.serialize(&mut *self.walk)?;
                if let Some(strings) = &mut self.walk.strings {
                    strings.push(self.walk.text.clone());
                }
            }
            _ => value.serialize(&mut *self.walk)?,
        }
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        let found = &mut self.walk.found;
        match self.of {
            Of::Function { name } => put(&mut found.functions, name.ok_or(Error)?),
            Of::Table { schema, name } => {
                let name = Name {
                    schema: (!schema.is_empty()).then_some(schema),
                    name,
                };
                put(&mut found.tables, name);
            }
            Of::Operator | Of::Type | Of::With | Of::Locking | Of::Text | Of::Other => {}
        }
        Ok(())
    }
}

/// A strength that is not known counts as the strongest.
fn lock(strength: i32) -> Lock {
    match LockClauseStrength::try_from(strength) {
        Ok(LockClauseStrength::LcsForkeyshare) => Lock::KeyShare,
        Ok(LockClauseStrength::LcsForshare) => Lock::Share,
        Ok(LockClauseStrength::LcsFornokeyupdate) => Lock::NoKeyUpdate,
        _ => Lock::Update,
    }
}

impl SerializeSeq for &mut Walk {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Scalars that nobody asks for.
macro_rules! passed {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, _: $type) -> Result<(), Error> { Ok(()) })*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    passed! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_bytes: &[u8]
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.number = value;
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        value.clone_into(&mut self.text);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        Err(Error)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        Err(Error)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(Error)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Error> {
        Err(Error)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'a>, Error> {
        let found = &mut self.found;
        let of = match name {
            "FuncCall" => Of::Function { name: None },
            "AExpr" | "SortBy" => Of::Operator,
            "SubLink" => {
                // `IN` has no operator's name.
                found.operator("=");
                Of::Operator
            }
            "CaseExpr" | "JoinExpr" => {
                // `CASE a WHEN b` and `USING` compare.
                found.operator("=");
                Of::Other
            }
            "TypeName" => Of::Type,
            "RangeVar" => Of::Table {
                schema: Box::default(),
                name: Box::default(),
            },
            "CommonTableExpr" => Of::With,
            "LockingClause" => Of::Locking,
            "String" => Of::Text,
            "IntoClause" => {
                found.into = true;
                Of::Other
            }
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                found.writes = Some(match name {
                    "InsertStmt" => "INSERT",
                    "UpdateStmt" => "UPDATE",
                    "DeleteStmt" => "DELETE",
                    _ => "MERGE",
                });
                Of::Other
            }
            "ExecuteStmt" => {
                found.executes = true;
                Of::Other
            }
            _ => Of::Other,
        };
        Ok(Fields { walk: self, of })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(Error)
    }
}
