//! What walks a value is paid for before it walks.
//!
//! The engine charges for the data that a template makes, and for a text once it is there. But lists
//! that hold one list twice, and that again twice, are small while their text is not; nor do they
//! compare or hash in less time. So a compiled template takes detours: before each instruction that
//! walks its operands, others take the fuel for all that will be walked. And lists that the engine would
//! make when they are asked for are made at once: chains of them take longer with each link.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};

/// What a step pays for: 64 bytes of text, as in the engine, or four elements.
const UNITS_PER_STEP: usize = 64;
const UNITS_PER_ELEMENT: usize = 16;

/// Filters of this module. No template can write these names.
const LIST: &str = "(list)";
const VALUE: &str = "(value)";
const MAP: &str = "(map)";
const FILTER: &str = "(filter)";
const TEST: &str = "(test)";
const METHOD: &str = "(method)";

/// Not remembered by a template that looks it up.
const NOT_LOCAL: u8 = !0;

/// Filters that leave alone what is in the elements of their operand, or pay by themselves.
const SHALLOW_FILTERS: [&str; 12] = [
    "batch", "count", "d", "default", "first", "items", "last", "length", "list", "reverse",
    "slice", "tojson",
];

/// Tests that ask what a value is, not what is in it.
const SHALLOW_TESTS: [&str; 10] = [
    "boolean", "defined", "false", "iterable", "mapping", "none", "number", "sequence", "string",
    "true",
];

/// Filters that give their other arguments to another filter or test, for each element.
const REPEATING_FILTERS: [&str; 5] = ["map", "reject", "rejectattr", "select", "selectattr"];

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter(LIST, list);
    environment.add_filter(VALUE, |state: &State<'_, '_>, value: Value| {
        pay(state, &value, 1).map(|()| value)
    });
    environment.add_filter(MAP, map);
    environment.add_filter(FILTER, filter);
    environment.add_filter(TEST, test);
    environment.add_filter(METHOD, method);
    environment.set_formatter(write);
}

fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    pay(state, value, 1)?;
    escape_formatter(out, state, value)
}

fn filter(state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let (name, arguments) = called(arguments);
    if !SHALLOW_FILTERS.contains(&&*name) {
        let repeated = match arguments.first().and_then(Value::len) {
            Some(length) if REPEATING_FILTERS.contains(&&*name) => length.max(1),
            _ => 1,
        };
        for (at, argument) in arguments.iter().enumerate() {
            pay(state, argument, if at == 0 { 1 } else { repeated })?;
        }
    }
    let result = state.apply_filter(&name, &arguments);
    list(
        state,
        result.map_err(|error| unknown(error, "filter", &name))?,
    )
}

fn test(state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>) -> Result<bool, Error> {
    let (name, arguments) = called(arguments);
    pay_all(state, &arguments)?;
    let result = state.perform_test(&name, &arguments);
    result.map_err(|error| unknown(error, "test", &name))
}

fn method(state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let (name, arguments) = called(arguments);
    pay_all(state, &arguments)?;
    let (value, arguments) = arguments.split_first().ok_or(ErrorKind::MissingArgument)?;
    value.call_method(state, &name, arguments)
}

/// Puts the name into an error that lacks it.
fn unknown(error: Error, what: &str, name: &str) -> Error {
    match error.kind() {
        kind @ (ErrorKind::UnknownFilter | ErrorKind::UnknownTest) if error.detail().is_none() => {
            Error::new(kind, format!("{what} {name} is unknown"))
        }
        _ => error,
    }
}

/// The elements of a list that is not made yet, in a list that is.
fn list(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let is_made = value.is_tuple() || value.downcast_object_ref::<Vec<Value>>().is_some();
    if is_made || !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(value);
    }
    let mut elements = Vec::new();
    for element in value.try_iter()? {
        elements.push(element);
        // The engine takes more when all are there; this is so that there is an end.
        if elements.len().is_multiple_of(8) {
            state.consume_fuel(1)?;
        }
    }
    Ok(Value::from(elements))
}

/// What is called, which comes last, and its arguments.
fn called(arguments: Rest<ValueOrKwargs>) -> (String, Vec<Value>) {
    let mut arguments = arguments.into_values();
    let name = arguments.pop().unwrap_or_default();
    (name.to_string(), arguments)
}

/// The map of keys and values that take turns.
fn map(state: &State<'_, '_>, turns: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let turns = turns.into_values();
    let (pairs, _) = turns.as_chunks();
    for [key, _] in pairs {
        pay(state, key, 1)?;
    }
    Ok(Value::from_pairs(
        pairs.iter().cloned().map(<(Value, Value)>::from),
    ))
}

fn pay_all(state: &State<'_, '_>, values: &[Value]) -> Result<(), Error> {
    values.iter().try_for_each(|value| pay(state, value, 1))
}

/// The text of a value.
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    pay(state, value, 1).map(|()| value.to_string())
}

/// Takes the fuel for walking a value so many times.
///
/// What is no list and no map costs nothing: the engine charges for it.
fn pay(state: &State<'_, '_>, value: &Value, times: usize) -> Result<(), Error> {
    let mut pending = vec![value.clone()];
    let mut units: usize = 0;
    while let Some(value) = pending.pop() {
        if !matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
        ) {
            continue;
        }
        let is_map = value.kind() == ValueKind::Map;
        let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
        for (key, element) in pairs.into_iter().flatten() {
            for part in [is_map.then_some(key), Some(element)].into_iter().flatten() {
                units += UNITS_PER_ELEMENT + part.as_str().map_or(0, str::len);
                pending.push(part);
            }
            if units >= UNITS_PER_STEP {
                let steps = (units / UNITS_PER_STEP).saturating_mul(times);
                state.consume_fuel(steps as u64)?;
                units %= UNITS_PER_STEP;
            }
        }
    }
    state.consume_fuel(units.div_ceil(UNITS_PER_STEP).saturating_mul(times) as u64)
}

/// The instructions with their detours.
pub(super) fn guard<'source>(compiled: &Instructions<'source>) -> Instructions<'source> {
    let mut guarded = Instructions::new(compiled.name(), compiled.source());
    let mut end = 0;
    while let Some(instruction) = compiled.get(end) {
        add(&mut guarded, instruction.clone(), compiled, end);
        end += 1;
    }
    let leave = guarded.add(Instruction::Jump(0));
    let mut next = leave + 1;
    for at in 0..end {
        let detour = compiled.get(at).map(detour).unwrap_or_default();
        if detour.is_empty() {
            continue;
        }
        replace(&mut guarded, at, Instruction::Jump(next));
        for instruction in detour {
            add(&mut guarded, instruction, compiled, at);
        }
        next = 1 + add(&mut guarded, Instruction::Jump(at + 1), compiled, at);
    }
    replace(&mut guarded, leave, Instruction::Jump(next));
    guarded
}

/// Adds an instruction that is said to stand where one of `compiled` does.
fn add<'source>(
    to: &mut Instructions<'source>,
    instruction: Instruction<'source>,
    compiled: &Instructions<'source>,
    at: u32,
) -> u32 {
    match (compiled.get_span(at), compiled.get_line(at)) {
        (Some(span), _) => to.add_with_span(instruction, span),
        (None, Some(line)) => to.add_with_line(instruction, line.try_into().unwrap_or(u16::MAX)),
        (None, None) => to.add(instruction),
    }
}

fn replace<'source>(
    within: &mut Instructions<'source>,
    at: u32,
    instruction: Instruction<'source>,
) {
    if let Some(place) = within.get_mut(at) {
        *place = instruction;
    }
}

/// What takes an instruction's place; nothing if it walks no value.
fn detour<'source>(instruction: &Instruction<'source>) -> Vec<Instruction<'source>> {
    use Instruction::{
        Add, ApplyFilter, BuildMap, CallMethod, CompareAndPreserve, Eq, GetItem, Gt, Gte, In, Lt,
        Lte, Mul, Ne, PerformTest, Slice, StringConcat, Swap,
    };
    let pay = || ApplyFilter(VALUE, Some(1), NOT_LOCAL);
    match instruction {
        Eq | Ne | Gt | Gte | Lt | Lte | In | CompareAndPreserve(_) | StringConcat => {
            vec![pay(), Swap, pay(), Swap, instruction.clone()]
        }
        GetItem => vec![pay(), GetItem],
        // A list that grows by a few elements does so without being made anew.
        Add => vec![ApplyFilter(LIST, Some(1), NOT_LOCAL), Add],
        Mul | Slice => vec![instruction.clone(), ApplyFilter(LIST, Some(1), NOT_LOCAL)],
        // More do not fit into a tag.
        BuildMap(pairs) => match u16::try_from(2 * pairs) {
            Ok(count) => vec![ApplyFilter(MAP, Some(count), NOT_LOCAL)],
            Err(_) => vec![],
        },
        ApplyFilter(name, count, _) => call(FILTER, name, *count),
        PerformTest(name, count, _) if !SHALLOW_TESTS.contains(name) => call(TEST, name, *count),
        CallMethod(name, count) => call(METHOD, name, *count),
        _ => vec![],
    }
}

/// Applies a filter of this module, with one more argument: what it shall call.
fn call<'source>(
    filter: &'source str,
    name: &str,
    count: Option<u16>,
) -> Vec<Instruction<'source>> {
    use Instruction::{Add, ApplyFilter, LoadConst, Swap};
    let load = LoadConst(Value::from(name));
    match count {
        Some(count) => vec![load, ApplyFilter(filter, Some(count + 1), NOT_LOCAL)],
        // Their number is on the stack, above them.
        None => vec![
            load,
            Swap,
            LoadConst(Value::from(1)),
            Add,
            ApplyFilter(filter, None, NOT_LOCAL),
        ],
    }
}
