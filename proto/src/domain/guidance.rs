//! The guidance decision of a step: which of the two passes of classifier-free guidance run.

/// What a step does about classifier-free guidance. With `c` and `u` the outputs of the conditional and the
/// unconditional pass and the guidance scale `s`, the guided output is:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum GuidanceDecision {
    /// `u + s (c - u)`: both passes run.
    #[default]
    Both = 0,
    /// `c`: the conditional pass runs alone, and the step is not guided.
    Conditional = 1,
    /// `c + (s - 1) d`, where `d` is `c - u` of the last step that ran both passes: the conditional pass runs alone.
    Kept = 2,
}

impl GuidanceDecision {
    /// `B`, `C` or `K`.
    pub fn letter(self) -> char {
        match self {
            Self::Both => 'B',
            Self::Conditional => 'C',
            Self::Kept => 'K',
        }
    }

    /// The decision for a letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        match letter {
            'B' => Some(Self::Both),
            'C' => Some(Self::Conditional),
            'K' => Some(Self::Kept),
            _ => None,
        }
    }

    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        [Self::Both, Self::Conditional, Self::Kept].get(usize::from(bits)).copied()
    }
}

/// One of the two passes. Each stored output has a part of each, with its own age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// With the prompt; runs at every step.
    Conditional,
    /// With the negative prompt; runs at steps with [`GuidanceDecision::Both`].
    Unconditional,
}
