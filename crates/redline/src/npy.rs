//! NumPy's array files. Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

/// Header of a version 1.0 file of little-endian F32 `[rows, columns]`, row after row. The values
/// follow it.
pub(crate) fn header_f32(rows: usize, columns: usize) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    const ALIGNMENT: usize = 64;
    let mut description =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let length_bytes = size_of::<u16>();
    let end = MAGIC.len() + length_bytes + description.len() + 1;
    let padding = end.next_multiple_of(ALIGNMENT) - end;
    description.extend(std::iter::repeat_n(' ', padding));
    description.push('\n');
    let length = u16::try_from(description.len()).expect("two numbers fit in 64 KiB");
    [MAGIC, &length.to_le_bytes(), description.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_numpy_writes() {
        // numpy.save of numpy.zeros((2, 3), '<f4').
        let expected =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        let header = header_f32(2, 3);
        assert!(header.starts_with(expected));
        assert_eq!(header.len(), 128);
        assert!(header[expected.len()..127].iter().all(|byte| *byte == b' '));
        assert_eq!(header[127], b'\n');
    }
}
