//! A reader of headers bit by bit.

/// Reads bits, the highest of a byte first. Reads beyond the end return none.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// Reads an unsigned number of `bits` bits, 64 at most.
    pub(super) fn number(&mut self, bits: u32) -> Option<u64> {
        (0..bits).try_fold(0, |value, _| Some(value << 1 | u64::from(self.bit()?)))
    }

    /// Reads an unsigned Exp-Golomb code (ITU-T H.264, 9.1).
    pub(super) fn unsigned_code(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
        }
        (zeros < 64).then_some(())?;
        Some((1 << zeros) - 1 + self.number(zeros)?)
    }

    /// Reads a signed Exp-Golomb code (9.1.1).
    pub(super) fn signed_code(&mut self) -> Option<i64> {
        let code = i64::try_from(self.unsigned_code()?).ok()?;
        Some(if code % 2 == 1 {
            code / 2 + 1
        } else {
            -code / 2
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // 1, 010, 011, 00100, 00101: 0, 1, 2, 3, 4.
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::new(&bytes);
        assert_eq!(
            std::array::from_fn(|_| bits.unsigned_code()),
            [0, 1, 2, 3, 4].map(Some)
        );
        let mut bits = Bits::new(&bytes);
        assert_eq!(
            std::array::from_fn(|_| bits.signed_code()),
            [0, 1, -1, 2, -2].map(Some)
        );
        assert_eq!(Bits::new(&[0, 0]).unsigned_code(), None, "no end");
        assert_eq!(Bits::new(&[0xff]).number(9), None);
    }
}
