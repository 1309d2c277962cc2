//! The cacheable modules of a model: block groups, their components, and the slots.

use std::fmt;

use super::limits::{MAX_COMPONENTS, MAX_SLOTS};
use super::problems::shown;

/// One cacheable module of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Component {
    /// Name within the block, such as `attn1`.
    pub name: String,
    /// The component of the same block that alone reads this one's output, such as `proj_out` for FLUX's `proj_mlp`.
    /// `None`: the output goes to the block's residual stream.
    pub feeds: Option<String>,
}

impl Component {
    /// A component whose output goes to the residual stream.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), feeds: None }
    }

    /// A component whose output is read by `consumer` alone.
    pub fn feeding(name: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self { name: name.into(), feeds: Some(consumer.into()) }
    }
}

/// A group of identical blocks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockGroup {
    /// Name of the group, such as `block`, `double` or `single`.
    pub name: String,
    /// The number of blocks.
    pub count: u32,
    /// The components of one block, in the order in which they run.
    pub components: Vec<Component>,
}

/// One cacheable module of the model: a component of a block of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Index of the group in the layout.
    pub group: usize,
    /// Index of the block within its group.
    pub block: u32,
    /// Index of the component within the block.
    pub component: usize,
}

/// Why a layout is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A group without blocks or components, or no group.
    #[error("layout has no slots: {0}")]
    Empty(String),
    /// More slots than [`MAX_SLOTS`].
    #[error("layout has {0} slots, at most {MAX_SLOTS} are supported")]
    TooLarge(usize),
    /// More than [`MAX_COMPONENTS`] components over all groups.
    #[error("layout has {0} components over all block groups, at most {MAX_COMPONENTS} are supported")]
    Components(usize),
    /// A name that is not 1 to 32 characters of `[a-z][a-z0-9_]*`.
    #[error("layout name '{0}' must be 1 to 32 characters of a-z, 0-9 and '_', starting with a letter")]
    Name(String),
    /// Two groups, or two components of a group, with the same name.
    #[error("layout name '{0}' is used twice")]
    Duplicate(String),
    /// `feeds` does not name a later component of the block whose output goes to the residual stream.
    #[error(
        "component '{component}' feeds '{consumer}', which is not a later component of its block that feeds no other"
    )]
    Feeds {
        /// The component.
        component: String,
        /// The component that it names.
        consumer: String,
    },
}

/// The slots of a model, in the order in which they run: group, block, component.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    groups: Vec<BlockGroup>,
    slots: Vec<Slot>,
    consumers: Vec<Option<usize>>,
}

fn check_name(name: &str) -> Result<(), LayoutError> {
    let good = (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if good { Ok(()) } else { Err(LayoutError::Name(shown(name, 80))) }
}

impl Layout {
    /// Checks the groups: valid and unique names, `feeds` to a later residual component, 1 to [`MAX_SLOTS`] slots.
    pub fn new(groups: Vec<BlockGroup>) -> Result<Self, LayoutError> {
        if groups.is_empty() {
            return Err(LayoutError::Empty("no block group".into()));
        }
        let components: usize = groups.iter().map(|group| group.components.len()).sum();
        // Every group must have a component, so this bounds the number of groups too.
        if components.max(groups.len()) > MAX_COMPONENTS {
            return Err(LayoutError::Components(components.max(groups.len())));
        }
        let mut total = 0usize;
        for (g, group) in groups.iter().enumerate() {
            check_name(&group.name)?;
            if groups[..g].iter().any(|other| other.name == group.name) {
                return Err(LayoutError::Duplicate(group.name.clone()));
            }
            if group.count == 0 || group.components.is_empty() {
                return Err(LayoutError::Empty(format!("group '{}' is empty", group.name)));
            }
            for (c, component) in group.components.iter().enumerate() {
                check_name(&component.name)?;
                if group.components[..c].iter().any(|other| other.name == component.name) {
                    return Err(LayoutError::Duplicate(component.name.clone()));
                }
                if let Some(consumer) = &component.feeds
                    && !group.components[c + 1..].iter().any(|o| &o.name == consumer && o.feeds.is_none())
                {
                    let (component, consumer) = (component.name.clone(), shown(consumer, 80));
                    return Err(LayoutError::Feeds { component, consumer });
                }
            }
            total = total.saturating_add((group.count as usize).saturating_mul(group.components.len()));
            if total > MAX_SLOTS {
                return Err(LayoutError::TooLarge(total));
            }
        }
        let mut slots = Vec::with_capacity(total);
        let mut consumers = Vec::with_capacity(total);
        for (group, g) in groups.iter().enumerate() {
            for block in 0..g.count {
                let first = slots.len();
                for (component, c) in g.components.iter().enumerate() {
                    slots.push(Slot { group, block, component });
                    consumers.push(
                        c.feeds.as_ref().and_then(|consumer| {
                            g.components.iter().position(|o| &o.name == consumer).map(|i| first + i)
                        }),
                    );
                }
            }
        }
        Ok(Self { groups, slots, consumers })
    }

    /// PixArt: one group `block` of `blocks` × `[attn1, attn2, ff]`.
    pub fn pixart(blocks: u32) -> Result<Self, LayoutError> {
        let components = ["attn1", "attn2", "ff"].map(Component::new).to_vec();
        Self::new(vec![BlockGroup { name: "block".into(), count: blocks, components }])
    }

    /// FLUX: `double × [attn, ff, ff_context]`, then `single × [attn, proj_mlp, proj_out]`, where only `proj_out` reads
    /// the other two.
    pub fn flux(doubles: u32, singles: u32) -> Result<Self, LayoutError> {
        Self::new(vec![
            BlockGroup {
                name: "double".into(),
                count: doubles,
                components: ["attn", "ff", "ff_context"].map(Component::new).to_vec(),
            },
            BlockGroup {
                name: "single".into(),
                count: singles,
                components: vec![
                    Component::feeding("attn", "proj_out"),
                    Component::feeding("proj_mlp", "proj_out"),
                    Component::new("proj_out"),
                ],
            },
        ])
    }

    /// The block groups.
    pub fn groups(&self) -> &[BlockGroup] {
        &self.groups
    }

    /// The number of slots.
    #[inline]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slot with this index. Panics if `index >= self.slots()`.
    #[inline]
    pub fn slot(&self, index: usize) -> Slot {
        self.slots[index]
    }

    /// The index of the only slot that reads the output of slot `index`. `None`: it goes to the residual stream.
    pub fn consumer(&self, index: usize) -> Option<usize> {
        self.consumers[index]
    }

    /// The slot's name, `group.block.component`, such as `block.3.attn1`.
    pub fn slot_name(&self, index: usize) -> String {
        let slot = self.slots[index];
        let group = &self.groups[slot.group];
        format!("{}.{}.{}", group.name, slot.block, group.components[slot.component].name)
    }
}

impl fmt::Display for Layout {
    /// The whole layout on one line, such as `block*28[attn1,attn2,ff]`. Schedule ids are digests over it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (g, group) in self.groups.iter().enumerate() {
            if g > 0 {
                f.write_str(";")?;
            }
            write!(f, "{}*{}[", group.name, group.count)?;
            for (c, component) in group.components.iter().enumerate() {
                if c > 0 {
                    f.write_str(",")?;
                }
                f.write_str(&component.name)?;
                if let Some(consumer) = &component.feeds {
                    write!(f, ">{consumer}")?;
                }
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_run_through_groups_blocks_and_components() {
        let layout = Layout::flux(2, 1).unwrap();
        let names: Vec<_> = (0..layout.slots()).map(|i| layout.slot_name(i)).collect();
        assert_eq!(names[0], "double.0.attn");
        assert_eq!(names[4], "double.1.ff");
        assert_eq!(names[8], "single.0.proj_out");
        assert_eq!(layout.consumer(6), Some(8));
        assert_eq!(layout.consumer(7), Some(8));
        assert_eq!(layout.consumer(8), None);
        assert_eq!(
            layout.to_string(),
            "double*2[attn,ff,ff_context];single*1[attn>proj_out,proj_mlp>proj_out,proj_out]"
        );
    }

    #[test]
    fn a_layout_that_cannot_run_is_refused() {
        let group = |name: &str, count, components: Vec<Component>| BlockGroup { name: name.into(), count, components };
        let refused = [
            vec![],
            vec![group("block", 0, vec![Component::new("ff")])],
            vec![group("block", 1, vec![])],
            vec![group("Block", 1, vec![Component::new("ff")])],
            vec![group("a", 1, vec![Component::new("ff"), Component::new("ff")])],
            vec![group("a", 1, vec![Component::new("ff")]), group("a", 1, vec![Component::new("ff")])],
            vec![group("a", 1, vec![Component::new("out"), Component::feeding("mlp", "out")])],
            vec![group("a", u32::MAX, vec![Component::new("x"), Component::new("y")])],
            vec![group("a", 1, (0..=MAX_COMPONENTS).map(|i| Component::new(format!("c{i}"))).collect())],
            (0..=MAX_COMPONENTS).map(|i| group(&format!("g{i}"), 1, vec![])).collect(),
        ];
        for groups in refused {
            assert!(Layout::new(groups.clone()).is_err(), "{groups:?} must be refused");
        }
    }
}
