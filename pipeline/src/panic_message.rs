//! Messages of panics.

use std::any::Any;

/// The message of a panic that was caught; empty if it has none.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let literal = panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned());
    literal
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn panics_have_their_message() {
        let literal = catch_unwind(|| panic!("plain")).expect_err("it panics");
        assert_eq!(panic_message(&*literal), "plain");
        let formatted = catch_unwind(|| panic!("{} of {}", 1, 2)).expect_err("it panics");
        assert_eq!(panic_message(&*formatted), "1 of 2");
        let other = catch_unwind(|| std::panic::panic_any(7)).expect_err("it panics");
        assert_eq!(panic_message(&*other), "");
    }
}
