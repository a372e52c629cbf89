//! Making an input small that does something bad.

/// How many tries a small input is worth.
const TRIES: usize = 2000;

/// The smallest that was found of the inputs that are `bad` like this one: pieces are left out, large
/// ones first.
pub(crate) fn shrunk(input: &[u8], bad: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut tries = 0;
    let mut piece = best.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < best.len() && tries < TRIES {
            let mut smaller = best.clone();
            smaller.drain(at..(at + piece).min(best.len()));
            tries += 1;
            if bad(&smaller) {
                best = smaller;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_left() {
        let input: Vec<u8> = (0..=255).collect();
        let small = shrunk(&input, |bytes| bytes.contains(&7) && bytes.contains(&200));
        assert_eq!(small, [7, 200]);
    }
}
