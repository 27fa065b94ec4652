//! Chance. Seeded in tests and simulation; from the kernel for secrets.

use std::sync::{Arc, Mutex};

/// A source of random numbers, shared by clone.
#[derive(Clone, Debug)]
pub struct Rng {
    source: Arc<Mutex<fastrand::Rng>>,
    seeded: bool,
}

impl Rng {
    /// Unpredictable: [`Rng::secret`] asks the kernel, the rest is seeded from it.
    #[must_use]
    pub fn system() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the kernel always has random bytes");
        Rng {
            source: Arc::new(Mutex::new(fastrand::Rng::with_seed(u64::from_le_bytes(seed)))),
            seeded: false,
        }
    }

    /// The same numbers for the same seed. Never for secrets in production.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Rng {
            source: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            seeded: true,
        }
    }

    /// A source of its own, derived from this one: give each part of a simulation one.
    #[must_use]
    pub fn fork(&self) -> Self {
        if self.seeded {
            Rng::seeded(self.u64())
        } else {
            Rng::system()
        }
    }

    /// Any u64.
    #[must_use]
    pub fn u64(&self) -> u64 {
        self.with(|r| r.u64(..))
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.with(|r| r.u64(..bound))
        }
    }

    /// A number in `0.0..1.0`.
    #[must_use]
    pub fn unit(&self) -> f64 {
        self.with(fastrand::Rng::f64)
    }

    /// Random bytes fit for a key: from the kernel unless seeded.
    #[must_use]
    pub fn secret<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        if self.seeded {
            self.with(|r| r.fill(&mut bytes));
        } else {
            getrandom::fill(&mut bytes).expect("the kernel always has random bytes");
        }
        bytes
    }

    fn with<T>(&self, f: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        f(&mut self.source.lock().expect("no panic while drawing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        assert_eq!(
            (a.u64(), a.below(10), a.secret::<4>()),
            (b.u64(), b.below(10), b.secret::<4>())
        );
        assert_eq!(a.fork().u64(), b.fork().u64());
    }

    #[test]
    fn below_zero_is_zero() {
        assert_eq!(Rng::system().below(0), 0);
    }
}
