-- What is known of functions, for `Functions::new`. First all of them: schema, name, whether one of that name is volatile, whether
-- all are PostgreSQL's own. Then the same of single functions, with what calls them without a word in the query: its kind,
-- schema and name. Trees of views, policies, domains and defaults name what they call by its number; of PostgreSQL's own nothing is in
-- pg_depend. Its views stand for themselves. Runs on PostgreSQL 13 to 18.
with recursive trees (kind, id, tree) as (
  select 'relation', r.ev_class, r.ev_action::text
    from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class
    where r.ev_class >= 16384 and r.ev_type = '1' and c.relkind = 'v'
  union all select 'relation', p.polrelid, p.polqual::text
    from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid
    where p.polcmd in ('r', '*') and c.relrowsecurity
  union all select 'type', contypid, conbin::text from pg_catalog.pg_constraint where contypid >= 16384
  union all select 'function', oid, proargdefaults::text from pg_catalog.pg_proc where oid >= 16384 and proargdefaults is not null
), links (kind, id, to_kind, to_id) as (
  select t.kind, t.id,
      case m[1] when 'relid' then 'relation' when 'resulttype' then 'type' when 'opno' then 'operator' when 'eqop' then 'operator'
        when 'sortop' then 'operator' else 'function' end,
      m[2]::oid
    from trees t, lateral pg_catalog.regexp_matches(t.tree,
      ':(funcid|opfuncid|winfnoid|aggfnoid|opno|eqop|sortop|relid|resulttype) (\d+)', 'g') m
  union select 'operator', oid, 'function', oprcode from pg_catalog.pg_operator where oid >= 16384
  union select 'function', a.aggfnoid, 'function', f
    from pg_catalog.pg_aggregate a, lateral pg_catalog.unnest(
      array[aggtransfn, aggfinalfn, aggcombinefn, aggmtransfn, aggminvtransfn, aggmfinalfn]) f
    where a.aggfnoid >= 16384
  union select 'type', oid, 'function', typinput from pg_catalog.pg_type where oid >= 16384 and typtype = 'b' and typelem = 0
  union select 'type', oid, 'type', t
    from pg_catalog.pg_type, lateral pg_catalog.unnest(array[typbasetype, typelem]) t where oid >= 16384 and t >= 16384
  -- Of a sequence a replica knows more than was drawn.
  union select 'relation', c.oid, 'function', 'pg_catalog.pg_sequence_last_value(pg_catalog.regclass)'::pg_catalog.regprocedure::oid
    from pg_catalog.pg_class c where c.relkind = 'S'
  -- Within trees, casts are the functions that they call.
  union select 'cast', casttarget, 'function', castfunc from pg_catalog.pg_cast where castfunc >= 16384
  -- One that needs no word takes place wherever a column of its source is.
  union select 'column', attrelid, 'function', castfunc
    from pg_catalog.pg_cast join pg_catalog.pg_attribute on atttypid = castsource
    where castfunc >= 16384 and castcontext = 'i' and attnum > 0
), reached (kind, id, to_kind, to_id) as (
  select * from links
  union select r.kind, r.id, l.to_kind, l.to_id from reached r join links l on l.kind = r.to_kind and l.id = r.to_id
), named (kind, id, of_kind, schema, name) as (
  select k, c.oid, 'relation', n.nspname, c.relname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace, (values ('relation'), ('column')) kinds (k)
  union all select k, t.oid, 'type', n.nspname, t.typname
    from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace, (values ('type'), ('cast')) kinds (k)
  union all select 'operator', o.oid, 'operator', n.nspname, o.oprname
    from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
  union all select 'function', p.oid, 'function', n.nspname, p.proname
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
), called (kind, id, schema, name, volatile, builtin) as (
  select 'function', p.oid, n.nspname, p.proname, p.provolatile = 'v', p.oid < 16384
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where p.oid >= 16384 or p.provolatile <> 'i'
  union all select 'relation', c.oid, n.nspname, c.relname, false, true
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid < 16384 and c.relkind = 'v' and n.nspname = 'pg_catalog'
)
select n.nspname::text, p.proname::text, bool_or(p.provolatile = 'v'), bool_and(p.oid < 16384), null::text, null::text, null::text
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where n.nspname !~ '^pg_(toast_)?temp_'
  group by 1, 2
union all
select distinct c.schema::text, c.name::text, c.volatile, c.builtin, n.of_kind, n.schema::text, n.name::text
  from reached r
    join called c on c.kind = r.to_kind and c.id = r.to_id
    join named n on n.kind = r.kind and n.id = r.id
  where (n.schema, n.name) <> (c.schema, c.name) and n.schema !~ '^pg_(toast_)?temp_'
