//! One statement: its command, and where it may run.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    CopyStmt, DefElem, Node, TransactionStmt, TransactionStmtKind, VariableSetKind,
    VariableSetStmt, a_const,
};

use super::walk::{Found, walk};
use super::{Control, Statement};
use crate::functions::{Kind, Mention, Name, is_one_servers as is_one_servers_view};
use crate::route::{Begins, Place, Why};

/// `CURSOR_OPT_HOLD` of PostgreSQL's `nodes/parsenodes.h`.
const WITH_HOLD: i32 = 0x20;

/// What is known of the statement with this tree; nothing when the tree cannot be walked.
pub(super) fn read(node: &NodeEnum) -> Option<Statement> {
    let found = walk(node)?;
    let control = match node {
        NodeEnum::TransactionStmt(transaction) => control(transaction),
        NodeEnum::VariableSetStmt(set) if of_transaction(set) => Some(Control::Within),
        _ => None,
    };
    let (place, why) = decide(node, &found, control);
    Some(Statement {
        command: command(node),
        place,
        why,
        control,
        lock: found.lock,
        mentions: mentions(&found),
        tables: found.own_tables(),
        functions: found.functions,
    })
}

/// What calls functions by itself, if anything here does. A name of a WITH clause may be that of a view as well, within the clause.
fn mentions(found: &Found) -> Vec<Mention> {
    let of = |kind, names: &[Name]| {
        let mention = |name: &Name| Mention {
            kind,
            name: name.clone(),
        };
        names.iter().map(mention).collect::<Vec<_>>()
    };
    let mut mentions = of(Kind::Relation, &found.tables);
    mentions.extend(of(Kind::Operator, &found.operators));
    mentions.extend(of(Kind::Type, &found.types));
    mentions
}

fn decide(node: &NodeEnum, found: &Found, control: Option<Control>) -> (Place, Why) {
    match node {
        NodeEnum::SelectStmt(_) => query(found),
        NodeEnum::DeclareCursorStmt(declared) => match inner(declared.query.as_deref(), found) {
            (Place::Read, _) if declared.options & WITH_HOLD != 0 => (Place::Primary, Why::Holds),
            other => other,
        },
        NodeEnum::ExplainStmt(explained) => match inner(explained.query.as_deref(), found) {
            (Place::Primary, Why::Writes(command)) => (Place::Primary, Why::Explains(command)),
            other => other,
        },
        NodeEnum::CopyStmt(copied) => copy(copied, found),
        NodeEnum::TransactionStmt(transaction) => transaction_place(transaction, control),
        NodeEnum::VariableSetStmt(set) => set_place(set),
        NodeEnum::VariableShowStmt(shown) if is_of_server(&shown.name) => {
            (Place::Primary, Why::OneServer)
        }
        NodeEnum::VariableShowStmt(_) => (Place::Anywhere, Why::Shows),
        NodeEnum::ConstraintsSetStmt(_) => (Place::Anywhere, Why::Sets),
        NodeEnum::DiscardStmt(_)
        | NodeEnum::DeallocateStmt(_)
        | NodeEnum::ClosePortalStmt(_)
        | NodeEnum::FetchStmt(_) => (Place::Anywhere, Why::Session),
        NodeEnum::PrepareStmt(_) => (Place::Primary, Why::Prepares),
        NodeEnum::ExecuteStmt(_) => (Place::Primary, Why::Executes),
        _ => (Place::Primary, Why::Writes(command(node))),
    }
}

/// A query is a read unless something in it is not.
fn query(found: &Found) -> (Place, Why) {
    let why = if let Some(command) = found.writes {
        Why::WritesInside(command)
    } else if found.into {
        Why::Into
    } else if let Some(lock) = found.lock {
        Why::Locks(lock)
    } else if found.executes {
        Why::Executes
    } else if found.tables.iter().any(is_temporary) {
        Why::Temporary
    } else if found.tables.iter().any(is_one_servers) {
        Why::OneServer
    } else {
        return (Place::Read, Why::OnlyReads);
    };
    (Place::Primary, why)
}

/// A statement within another one.
fn inner(node: Option<&Node>, found: &Found) -> (Place, Why) {
    match node.and_then(|node| node.node.as_ref()) {
        Some(node) => decide(node, found, None),
        None => (Place::Primary, Why::Unknown),
    }
}

fn copy(copied: &CopyStmt, found: &Found) -> (Place, Why) {
    if copied.is_from {
        (Place::Primary, Why::CopyFrom)
    } else if copied.is_program || !copied.filename.is_empty() {
        (Place::Primary, Why::CopyToFile)
    } else if copied.query.is_some() {
        inner(copied.query.as_deref(), found)
    } else {
        query(found)
    }
}

fn is_temporary(table: &Name) -> bool {
    let of = |schema: &str| schema == "pg_temp" || schema.starts_with("pg_temp_");
    table.schema.as_deref().is_some_and(of)
}

/// Views whose rows are about a server or a session: each server has others.
fn is_one_servers(table: &Name) -> bool {
    let system = table.schema.as_deref().is_none_or(|s| s == "pg_catalog");
    system && is_one_servers_view(&table.name)
}

/// Settings by which drivers ask whether they have found the primary.
fn is_of_server(setting: &str) -> bool {
    ["transaction_read_only", "in_hot_standby"].contains(&setting)
}

fn transaction_place(transaction: &TransactionStmt, control: Option<Control>) -> (Place, Why) {
    match control {
        Some(Control::Begins(Begins::ReadOnly)) => (Place::Read, Why::BeginsReadOnly),
        Some(Control::Begins(Begins::ReadWrite)) if asks(&transaction.options).serializable => {
            (Place::Primary, Why::Serializable)
        }
        Some(Control::Begins(Begins::ReadWrite)) => (Place::Primary, Why::ReadWrite),
        Some(Control::Begins(Begins::Unsaid)) => (Place::Primary, Why::Begins),
        // Two-phase commit is the primary's.
        Some(_) if !is_two_phase(transaction) => (Place::Anywhere, Why::Transaction),
        _ => (
            Place::Primary,
            Why::Writes(command_of_transaction(transaction)),
        ),
    }
}

fn is_two_phase(transaction: &TransactionStmt) -> bool {
    matches!(
        transaction.kind(),
        TransactionStmtKind::TransStmtPrepare
            | TransactionStmtKind::TransStmtCommitPrepared
            | TransactionStmtKind::TransStmtRollbackPrepared
    )
}

fn control(transaction: &TransactionStmt) -> Option<Control> {
    use TransactionStmtKind as Kind;
    Some(match transaction.kind() {
        Kind::TransStmtBegin | Kind::TransStmtStart => {
            let asked = asks(&transaction.options);
            Control::Begins(match asked {
                Asked {
                    serializable: true, ..
                }
                | Asked {
                    read_only: Some(false),
                    ..
                } => Begins::ReadWrite,
                Asked {
                    read_only: Some(true),
                    ..
                } => Begins::ReadOnly,
                _ => Begins::Unsaid,
            })
        }
        Kind::TransStmtCommit | Kind::TransStmtRollback if transaction.chain => Control::Chains,
        Kind::TransStmtCommit | Kind::TransStmtRollback | Kind::TransStmtPrepare => Control::Ends,
        Kind::TransStmtSavepoint | Kind::TransStmtRelease | Kind::TransStmtRollbackTo => {
            Control::Within
        }
        _ => return None,
    })
}

/// What the modes of a transaction ask for.
struct Asked {
    serializable: bool,
    /// False when one of them says so, whatever the others say.
    read_only: Option<bool>,
}

fn asks(modes: &[Node]) -> Asked {
    let mut asked = Asked {
        serializable: false,
        read_only: None,
    };
    for mode in modes {
        let Some(NodeEnum::DefElem(mode)) = &mode.node else {
            continue;
        };
        match mode.defname.as_str() {
            "transaction_isolation" => asked.serializable |= is_serializable(mode),
            "transaction_read_only" => {
                asked.read_only = Some(asked.read_only.unwrap_or(true) && is_one(mode));
            }
            _ => {}
        }
    }
    asked
}

fn constant(mode: &DefElem) -> Option<&a_const::Val> {
    match mode.arg.as_deref()?.node.as_ref()? {
        NodeEnum::AConst(constant) => constant.val.as_ref(),
        _ => None,
    }
}

/// A level that cannot be read is taken for the strictest.
fn is_serializable(mode: &DefElem) -> bool {
    match constant(mode) {
        Some(a_const::Val::Sval(level)) => level.sval == "serializable",
        _ => true,
    }
}

fn is_one(mode: &DefElem) -> bool {
    matches!(constant(mode), Some(a_const::Val::Ival(on)) if on.ival == 1)
}

/// `SET TRANSACTION`, not that of the session.
fn of_transaction(set: &VariableSetStmt) -> bool {
    set.kind() == VariableSetKind::VarSetMulti && set.name.starts_with("TRANSACTION")
}

fn set_place(set: &VariableSetStmt) -> (Place, Why) {
    let sets = (Place::Anywhere, Why::Sets);
    match set.kind() {
        VariableSetKind::VarSetMulti if set.name == "TRANSACTION SNAPSHOT" => {
            (Place::Primary, Why::Snapshot)
        }
        VariableSetKind::VarSetMulti if set.name == "TRANSACTION" => {
            let asked = asks(&set.args);
            if asked.serializable {
                (Place::Primary, Why::Serializable)
            } else if asked.read_only == Some(false) {
                (Place::Primary, Why::ReadWrite)
            } else {
                sets
            }
        }
        // The same by their names: the value is a constant, and texts are remembered without theirs.
        VariableSetKind::VarSetValue if set.name == "transaction_isolation" => {
            (Place::Primary, Why::Serializable)
        }
        VariableSetKind::VarSetValue if set.name == "transaction_read_only" => {
            (Place::Primary, Why::ReadWrite)
        }
        _ => sets,
    }
}

fn command_of_transaction(transaction: &TransactionStmt) -> &'static str {
    use TransactionStmtKind as Kind;
    match transaction.kind() {
        Kind::TransStmtBegin => "BEGIN",
        Kind::TransStmtStart => "START TRANSACTION",
        Kind::TransStmtCommit => "COMMIT",
        Kind::TransStmtRollback => "ROLLBACK",
        Kind::TransStmtSavepoint => "SAVEPOINT",
        Kind::TransStmtRelease => "RELEASE",
        Kind::TransStmtRollbackTo => "ROLLBACK TO SAVEPOINT",
        Kind::TransStmtPrepare => "PREPARE TRANSACTION",
        Kind::TransStmtCommitPrepared => "COMMIT PREPARED",
        Kind::TransStmtRollbackPrepared => "ROLLBACK PREPARED",
        Kind::Undefined => "a transaction command",
    }
}

/// The command's name. What has none here is called by what it does.
fn command(node: &NodeEnum) -> &'static str {
    match node {
        NodeEnum::SelectStmt(_) => "SELECT",
        NodeEnum::InsertStmt(_) => "INSERT",
        NodeEnum::UpdateStmt(_) => "UPDATE",
        NodeEnum::DeleteStmt(_) => "DELETE",
        NodeEnum::MergeStmt(_) => "MERGE",
        NodeEnum::TransactionStmt(transaction) => command_of_transaction(transaction),
        NodeEnum::CopyStmt(_) => "COPY",
        NodeEnum::ExplainStmt(_) => "EXPLAIN",
        NodeEnum::VariableSetStmt(_) => "SET",
        NodeEnum::VariableShowStmt(_) => "SHOW",
        NodeEnum::ConstraintsSetStmt(_) => "SET CONSTRAINTS",
        NodeEnum::DeclareCursorStmt(_) => "DECLARE",
        NodeEnum::ClosePortalStmt(_) => "CLOSE",
        NodeEnum::FetchStmt(_) => "FETCH",
        NodeEnum::PrepareStmt(_) => "PREPARE",
        NodeEnum::ExecuteStmt(_) => "EXECUTE",
        NodeEnum::DeallocateStmt(_) => "DEALLOCATE",
        NodeEnum::DiscardStmt(_) => "DISCARD",
        NodeEnum::CallStmt(_) => "CALL",
        NodeEnum::DoStmt(_) => "DO",
        NodeEnum::TruncateStmt(_) => "TRUNCATE",
        NodeEnum::LockStmt(_) => "LOCK",
        NodeEnum::ListenStmt(_) => "LISTEN",
        NodeEnum::UnlistenStmt(_) => "UNLISTEN",
        NodeEnum::NotifyStmt(_) => "NOTIFY",
        NodeEnum::LoadStmt(_) => "LOAD",
        NodeEnum::VacuumStmt(vacuum) if vacuum.is_vacuumcmd => "VACUUM",
        NodeEnum::VacuumStmt(_) => "ANALYZE",
        NodeEnum::ClusterStmt(_) => "CLUSTER",
        NodeEnum::ReindexStmt(_) => "REINDEX",
        NodeEnum::CheckPointStmt(_) => "CHECKPOINT",
        NodeEnum::RefreshMatViewStmt(_) => "REFRESH",
        NodeEnum::CreateTableAsStmt(_) => "CREATE … AS",
        NodeEnum::CreateStmt(_) => "CREATE TABLE",
        NodeEnum::IndexStmt(_) => "CREATE INDEX",
        NodeEnum::ViewStmt(_) => "CREATE VIEW",
        NodeEnum::CreateFunctionStmt(_) => "CREATE FUNCTION",
        NodeEnum::AlterTableStmt(_) => "ALTER TABLE",
        NodeEnum::DropStmt(_) => "DROP",
        NodeEnum::GrantStmt(grant) if grant.is_grant => "GRANT",
        NodeEnum::GrantStmt(_) => "REVOKE",
        NodeEnum::CommentStmt(_) => "COMMENT",
        NodeEnum::AlterSystemStmt(_) => "ALTER SYSTEM",
        _ => "a command that changes the schema or the server",
    }
}
