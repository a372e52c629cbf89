//! Mutations of bytes that formats trip over.

use rand::Rng as _;
use rand::rngs::StdRng;

/// Lengths and counts that are most often mistaken.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, u64::MAX];
/// Bytes with a meaning in texts and paths.
const SIGNS: &[u8] = b"\0\n\r\t \"'\\/.,:;=-+*?$#<>{}[]()|&%~@!0aA\x7f\x80\xc3\xff";

/// One of the pool with a few changes.
pub(crate) fn mutated(pool: &[Vec<u8>], number: usize, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = pool.get(number).cloned().unwrap_or_default();
    for _ in 0..1 << random.random_range(0..4_u32) {
        step(&mut bytes, pool, random);
    }
    bytes
}

fn step(bytes: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..11_u32) {
        0 => change(bytes, at, |byte| byte ^ (1 << random.random_range(0..8_u32))),
        1 => change(bytes, at, |_| random.random()),
        2 => change(bytes, at, |byte| byte.wrapping_add(1)),
        3 => change(bytes, at, |byte| byte.wrapping_sub(1)),
        4 => drop(bytes.drain(range(bytes.len(), at, random))),
        5 => bytes.truncate(at),
        6 => {
            let copied = bytes[range(bytes.len(), at, random)].to_vec();
            let place = random.random_range(0..=bytes.len());
            bytes.splice(place..place, copied);
        }
        7 => {
            let sign = SIGNS[random.random_range(0..SIGNS.len())];
            let times = [1, 1, 1, 2, 16, 300][random.random_range(0..6_usize)];
            bytes.splice(at..at, std::iter::repeat_n(sign, times));
        }
        8 => number(bytes, at, random),
        9 => {
            let other = &pool[random.random_range(0..pool.len())];
            let from = random.random_range(0..=other.len());
            let piece = &other[range(other.len(), from, random)];
            let end = (at + piece.len()).min(bytes.len());
            let replaced = if random.random() { at..end } else { at..at };
            bytes.splice(replaced, piece.iter().copied());
        }
        _ => {
            let other = &pool[random.random_range(0..pool.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at.min(other.len())..]);
        }
    }
}

/// Puts a number there, in one of the ways in which numbers are written.
fn number(bytes: &mut Vec<u8>, at: usize, random: &mut StdRng) {
    let number = NUMBERS[random.random_range(0..NUMBERS.len())];
    let width = [1, 2, 4, 8][random.random_range(0..4_usize)];
    let written = match random.random_range(0..3_u32) {
        0 => number.to_le_bytes()[..width].to_vec(),
        1 => number.to_be_bytes()[8 - width..].to_vec(),
        _ => varint(number),
    };
    let end = (at + written.len()).min(bytes.len());
    let replaced = if random.random() { at..end } else { at..at };
    bytes.splice(replaced, written);
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn change(bytes: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}

/// From `at` on, mostly short.
fn range(length: usize, at: usize, random: &mut StdRng) -> std::ops::Range<usize> {
    let most = if random.random_range(0..4_u32) == 0 { length - at } else { (length - at).min(16) };
    at..at + random.random_range(0..=most)
}
