//! The one generator of random numbers: written out here, so that a seed means the same for ever.
//!
//! SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; the constants are those of its reference implementation), numbers below
//! a bound by Lemire's multiplication with rejection (2019).

/// SplitMix64, with its state.
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, each equally likely.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            // The lowest `2^64 mod bound` fractions would make some results likelier: draw again.
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts items into an order of which each is equally likely.
    #[cfg(test)]
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// In `(0, 1]`, 53 bits.
    pub(crate) fn positive_unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// In `[0, 1)`, in steps of 2^-24.
    #[cfg(feature = "testing")]
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1_u32 << 24) as f32
    }
}

/// A number that looks drawn at random and is always the same for `x`: SplitMix64's first from that state. Chained
/// by exclusive or, as in `mix(mix(a) ^ b)`, it makes one seed of several numbers.
pub(crate) fn mix(x: u64) -> u64 {
    SplitMix64(x).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_the_reference_implementation_s_first_number() {
        // Of SplitMix64 from the states 0 and 1234567, as several published test vectors have them.
        assert_eq!([mix(0), mix(1_234_567)], [0xe220_a839_7b1d_cdaf, 6_457_827_717_110_365_317]);
    }

    #[test]
    fn a_draw_of_0_to_1_is_never_0() {
        // The highest 53 bits of the number above, and one more, so that its logarithm is finite.
        assert_eq!(SplitMix64(0).positive_unit() * (1_u64 << 53) as f64, 7_956_156_453_446_586.0);
    }
}
