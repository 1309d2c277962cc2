//! How an error names a field of a specification file.

use std::fmt::Display;

use crate::cli::kit::exit::Failure;

/// Makes the failure for a field and its problem; it adds the name of the file.
pub(super) type Wrong<'a> = dyn Fn(&str, &dyn Display) -> Failure + 'a;

/// The name of a field in the file, where tables of a list are in the singular.
pub(super) fn file_field(field: &str) -> String {
    for (contract, file) in [
        ("objectives", "objective"),
        ("prompts[", "prompt["),
        ("imported", "import"),
        ("sampling.grids", "sampling.grid"),
    ] {
        if let Some(rest) = field.strip_prefix(contract) {
            return format!("{file}{rest}");
        }
    }
    field.to_owned()
}
