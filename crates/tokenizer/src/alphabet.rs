//! The alphabet of byte-level BPE: one printable character for each byte.
//!
//! Bytes that are visible in Latin-1 stand for themselves; the other 68 take, in ascending order,
//! the characters from U+0100. So a space is `Ġ` and a newline `Ċ`.
//!
//! Source: `bytes_to_unicode` in GPT-2's encoder,
//! <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.

/// The character of each byte.
pub(crate) const CHARACTERS: [char; 256] = characters();

/// First character that stands for an invisible byte.
const SHIFTED: u32 = 0x100;

/// Number of characters up to and including the last one in use.
const END: usize = SHIFTED as usize + 68;

/// The byte of each character, by code point; `None` for the 68 that stand for no byte.
const BYTES: [Option<u8>; END] = bytes();

/// The byte that a character stands for.
pub(crate) fn byte(character: char) -> Option<u8> {
    BYTES.get(character as usize).copied().flatten()
}

const fn is_visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn characters() -> [char; 256] {
    let mut characters = ['\0'; 256];
    let mut shifted = SHIFTED;
    let mut byte = 0;
    while byte < 256 {
        characters[byte] = if is_visible(byte as u8) {
            byte as u8 as char
        } else {
            shifted += 1;
            match char::from_u32(shifted - 1) {
                Some(character) => character,
                None => unreachable!(),
            }
        };
        byte += 1;
    }
    characters
}

const fn bytes() -> [Option<u8>; END] {
    let mut bytes = [None; END];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARACTERS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        for value in 0..=255 {
            assert_eq!(byte(CHARACTERS[usize::from(value)]), Some(value));
        }
        assert_eq!(CHARACTERS[usize::from(b' ')], 'Ġ');
        assert_eq!(CHARACTERS[usize::from(b'\n')], 'Ċ');
        assert_eq!(CHARACTERS[0xAD], '\u{143}');
        assert_eq!(byte('\u{144}'), None);
        assert_eq!(byte(' '), None);
        assert_eq!(byte('語'), None);
    }
}
