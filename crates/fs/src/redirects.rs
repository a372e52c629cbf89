//! How long the path of a moved file may be.
//!
//! An overlay notes for a file of a lower layer that was renamed or linked where it lies there. Where that path is longer
//! than a parameter of the kernel's module, renaming fails with EXDEV, as between two disks. The parameter is one for
//! the whole machine and 256 bytes at first; what was written with a higher one is read with any.

use std::io;
use std::path::Path;

const PARAMETER: &str = "/sys/module/overlay/parameters/redirect_max";
/// The longest path that a program can name.
const ENOUGH: u32 = 4096;

/// The limit in force, in bytes; `None` where the module is not loaded or tells nothing.
pub fn redirect_limit() -> Option<u32> {
    limit_in(Path::new(PARAMETER))
}

/// Raises the limit to what programs can name, unless it is as high already. Returns the one in force then.
pub fn raise_redirect_limit() -> io::Result<u32> {
    raise_in(Path::new(PARAMETER))
}

fn limit_in(parameter: &Path) -> Option<u32> {
    std::fs::read_to_string(parameter).ok()?.trim().parse().ok()
}

fn raise_in(parameter: &Path) -> io::Result<u32> {
    let now = limit_in(parameter).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    if now >= ENOUGH {
        return Ok(now);
    }
    std::fs::write(parameter, format!("{ENOUGH}\n"))?;
    Ok(limit_in(parameter).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_raised_and_a_high_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let parameter = dir.path().join("redirect_max");
        raise_in(&parameter).unwrap_err();
        for (before, after) in [("256\n", 4096), ("8192\n", 8192)] {
            std::fs::write(&parameter, before).unwrap();
            assert_eq!(raise_in(&parameter).unwrap(), after);
            assert_eq!(limit_in(&parameter), Some(after));
        }
    }
}
