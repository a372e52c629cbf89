use homeport_fuzz::Target;

use super::*;

#[test]
fn fuzz_outboards() {
    let seed = |size: u64| {
        let groups = (0..size.div_ceil(GROUP).max(1)).map(|number| [number as u8; 32]).collect();
        Outboard { size, groups }.encode()
    };
    Target::new(env!("CARGO_MANIFEST_DIR"), "outboards").fuzz(
        [0, 1, GROUP, GROUP + 1, 5 * GROUP, 7 * GROUP - 1].map(seed),
        |bytes| match Outboard::decode(bytes) {
            Some(outboard) => {
                assert_eq!(outboard.encode(), bytes, "what decodes is the encoding");
                outboard.digest();
                for number in 0..outboard.groups.len() {
                    let size = outboard.size;
                    let _ = outboard.unchanged(number, size, std::slice::from_ref(&(0..size)));
                    let _ = outboard.unchanged(number, size.saturating_add(1), &[]);
                }
                format!("an outboard of {} groups", outboard.groups.len().min(3))
            }
            None => "none".to_owned(),
        },
    );
}
