//! The typed getters: what they take, and what they say to the rest.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use redline_gguf::{ArrayBuf, Error, Gguf, Metadata, Writer};

/// Runs `check` on the metadata that `fill` declares.
fn with_metadata(fill: impl Fn(&mut Writer) -> Result<(), Error>, check: impl Fn(&Metadata<'_>)) {
    let mut writer = Writer::new();
    fill(&mut writer).unwrap();
    let file = writer.start(Vec::new()).unwrap().finish().unwrap();
    check(Gguf::parse(&[&file]).unwrap().metadata());
}

fn says(result: Result<impl Sized, Error>, expected: &str) {
    assert_eq!(result.err().expect("an error").to_string(), expected);
}

#[test]
fn integers_of_any_width_are_taken_if_they_fit() {
    let fill = |writer: &mut Writer| {
        writer
            .metadata("u8", 200_u8)?
            .metadata("i8", -1_i8)?
            .metadata("u16", 60_000_u16)?;
        writer
            .metadata("i16", -2_i16)?
            .metadata("u32", u32::MAX)?
            .metadata("i32", i32::MIN)?;
        writer
            .metadata("u64", u64::MAX)?
            .metadata("i64", 5_i64)?
            .metadata("f32", 1.0_f32)?;
        writer.metadata("true", true)?;
        Ok(())
    };
    with_metadata(fill, |metadata| {
        assert_eq!(metadata.u32("u8").unwrap(), Some(200));
        assert_eq!(metadata.i32("i8").unwrap(), Some(-1));
        assert_eq!(metadata.u64("u16").unwrap(), Some(60_000));
        assert_eq!(metadata.i64("i16").unwrap(), Some(-2));
        assert_eq!(metadata.require_i64("u32").unwrap(), i64::from(u32::MAX));
        assert_eq!(metadata.require_i32("i32").unwrap(), i32::MIN);
        assert_eq!(metadata.require_u64("u64").unwrap(), u64::MAX);
        assert_eq!(metadata.require_usize("i64").unwrap(), 5);
        assert_eq!(metadata.u32("absent").unwrap(), None);
        says(
            metadata.u32("i8"),
            "metadata \"i8\" holds -1: expected a number in the range of u32",
        );
        says(
            metadata.i64("u64"),
            "metadata \"u64\" holds 18446744073709551615: expected a number in the range of i64",
        );
        says(
            metadata.u32("f32"),
            "metadata \"f32\" is of type f32: expected u32",
        );
        says(
            metadata.u32("true"),
            "metadata \"true\" is of type bool: expected u32",
        );
        says(
            metadata.require_u32("absent"),
            "metadata has no \"absent\": expected u32",
        );
    });
}

#[test]
fn plain_values_are_taken_as_what_they_are() {
    let fill = |writer: &mut Writer| {
        writer
            .metadata("f32", 0.5_f32)?
            .metadata("f64", 0.25_f64)?
            .metadata("bool", false)?;
        writer
            .metadata("text", "Ġ")?
            .metadata("list", &ArrayBuf::strings([""; 0]))?;
        Ok(())
    };
    with_metadata(fill, |metadata| {
        assert_eq!(metadata.require_f32("f32").unwrap(), 0.5);
        assert_eq!(metadata.require_f64("f64").unwrap(), 0.25);
        assert!(!metadata.require_bool("bool").unwrap());
        assert_eq!(metadata.require_str("text").unwrap(), "Ġ");
        assert!(metadata.require_array("list").unwrap().is_empty());
        assert_eq!(metadata.str("absent").unwrap(), None);
        says(
            metadata.f32("f64"),
            "metadata \"f64\" is of type f64: expected f32",
        );
        says(
            metadata.str("bool"),
            "metadata \"bool\" is of type bool: expected string",
        );
        says(
            metadata.bool("text"),
            "metadata \"text\" is of type string: expected bool",
        );
        says(
            metadata.array("text"),
            "metadata \"text\" is of type string: expected array",
        );
        says(
            metadata.require_str("absent"),
            "metadata has no \"absent\": expected string",
        );
    });
}

#[test]
fn arrays_are_taken_by_element() {
    let fill = |writer: &mut Writer| {
        writer.metadata("strings", &ArrayBuf::strings(["a", "", "é"]))?;
        writer.metadata("f32s", &ArrayBuf::from(&[1.5_f32, -0.0][..]))?;
        writer.metadata("u16s", &ArrayBuf::from(&[1_u16, 60_000][..]))?;
        writer.metadata("i32s", &ArrayBuf::from(&[1_i32, -1][..]))?;
        writer.metadata("bools", &ArrayBuf::from(&[true, false][..]))?;
        writer.metadata("no bytes", &ArrayBuf::from(&[0_u8; 0][..]))?;
        writer.metadata("number", 1_u32)?;
        Ok(())
    };
    with_metadata(fill, |metadata| {
        let strings: Vec<&str> = metadata.require_str_array("strings").unwrap().collect();
        assert_eq!(strings, ["a", "", "é"]);
        assert_eq!(metadata.f32_array("f32s").unwrap().unwrap(), [1.5, -0.0]);
        assert_eq!(metadata.i32_array("u16s").unwrap().unwrap(), [1, 60_000]);
        assert_eq!(metadata.u32_array("u16s").unwrap().unwrap(), [1, 60_000]);
        assert_eq!(metadata.i32_array("i32s").unwrap().unwrap(), [1, -1]);
        assert_eq!(
            metadata.bool_array("bools").unwrap().unwrap(),
            [true, false]
        );
        // An empty array has no elements of a wrong type.
        assert_eq!(metadata.require_str_array("no bytes").unwrap().count(), 0);
        assert!(metadata.f32_array("no bytes").unwrap().unwrap().is_empty());
        assert!(metadata.str_array("absent").unwrap().is_none());
        assert!(metadata.i32_array("absent").unwrap().is_none());
        says(
            metadata.str_array("f32s"),
            "metadata \"f32s\" is an array of f32: expected an array of strings",
        );
        says(
            metadata.f32_array("i32s"),
            "metadata \"i32s\" is an array of i32: expected an array of f32",
        );
        says(
            metadata.i32_array("strings"),
            "metadata \"strings\" is an array of string: expected an array of i32",
        );
        says(
            metadata.u32_array("i32s"),
            "metadata \"i32s\" holds -1: expected a number in the range of u32",
        );
        says(
            metadata.bool_array("number"),
            "metadata \"number\" is of type u32: expected an array of bool",
        );
        says(
            metadata.require_str_array("absent"),
            "metadata has no \"absent\": expected an array of strings",
        );
    });
}

#[test]
fn keys_are_found_whatever_their_order() {
    let keys = ["z", "a", "m.n", "m", "é", "aa"];
    let fill = |writer: &mut Writer| {
        for (index, key) in (0_u32..).zip(keys) {
            writer.metadata(key, index)?;
        }
        Ok(())
    };
    with_metadata(fill, |metadata| {
        assert_eq!((metadata.len(), metadata.is_empty()), (6, false));
        assert_eq!(
            metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            keys
        );
        for (index, key) in (0..).zip(keys) {
            assert_eq!(metadata.require_u32(key).unwrap(), index);
        }
        assert!(metadata.get("b").is_none());
        assert!(metadata.get("").is_none());
    });
}
