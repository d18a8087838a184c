//! What differs from layer to layer: which ones see only the last positions, and which have a rotary embedding.

use serde_json::Value;

use super::{experts, size, size_or_zero};
use crate::checkpoint::{
    config_error::ConfigError,
    family::{AttentionLayers, ConfigRules, ExpertsRule, RopeLayers, Size, Sliding},
    json::shortened,
    keys::Keys,
};

/// The longest period that a number in the configuration may state. Lists are as long as the file makes them.
pub(super) const LONGEST_PERIOD: usize = 4096;

/// What kind of layer a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Whether it sees only the last positions.
    pub sliding: bool,
    /// Whether it attends, and does not mix positions by something else.
    pub attends: bool,
    /// Whether it has a rotary embedding.
    pub turned: bool,
    /// The earlier layer whose keys and values it takes.
    pub borrows: Option<usize>,
    /// Whether it has experts.
    pub experts: bool,
}

/// Kinds of layers in their order, as far as they do not repeat.
pub(super) struct Pattern {
    period: Vec<Kind>,
    window: Option<usize>,
}

impl Pattern {
    pub(super) fn read(
        keys: &Keys<'_>,
        rules: &ConfigRules,
        experts: Option<&ExpertsRule>,
        count: usize,
    ) -> Result<Self, ConfigError> {
        let sliding = sliding(keys, rules.sliding, count)?;
        let some_slide = sliding.contains(&true);
        let turned = match rules.rope.layers {
            RopeLayers::All => vec![true],
            RopeLayers::None => vec![false],
            RopeLayers::Sliding if some_slide || matches!(rules.sliding, Sliding::Every { .. }) => sliding.clone(),
            RopeLayers::Sliding => vec![true],
            RopeLayers::Listed(list, every, default) => listed(keys, list, every, default, count)?,
        };
        let attends = match rules.other_mixers {
            None => vec![true],
            Some(rule) => attending(keys, rule.attention, count)?,
        };
        // All repeat: lists have as many entries as there are layers, and other periods are short.
        let both = |one: usize, other: usize| {
            let longer = one.max(other);
            if longer == count || one == other { longer } else { one * other }
        };
        let length = both(both(sliding.len(), turned.len()), attends.len());
        let kind = |i| Kind {
            sliding: sliding[i % sliding.len()],
            attends: attends[i % attends.len()],
            turned: turned[i % turned.len()],
            borrows: None,
            experts: false,
        };
        let mut period: Vec<Kind> = (0..length.min(count)).map(kind).collect();
        if let Some(layers) = rules.borrowing_layers {
            let borrowing = size_or_zero(keys, layers)?;
            if borrowing > 0 {
                period = borrowed(keys, layers.key, &period, borrowing, count)?;
            }
        }
        if let Some(rule) = experts {
            let has = experts::layers(keys, rule.layers, rules.sizes.layers.key, count)?;
            period = (0..period.len().max(has.len()))
                .map(|i| Kind { experts: has[i % has.len()], ..period[i % period.len()] })
                .collect();
        }
        let window = match rules.sliding {
            _ if !some_slide => None,
            Sliding::Every { window, .. } => Some(size(keys, window)?),
            _ => Some(keys.required_size("sliding_window")?),
        };
        Ok(Self { period, window })
    }

    /// Each layer of a period in its order.
    pub(super) fn period(&self) -> impl Iterator<Item = Kind> {
        self.period.iter().copied()
    }

    /// The kinds that occur, each once.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for kind in self.period() {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    /// Positions that a layer of this kind sees, if not all.
    pub(super) fn window(&self, kind: Kind) -> Option<usize> {
        self.window.filter(|_| kind.sliding)
    }
}

/// Which layers of a period see only the last positions.
fn sliding(keys: &Keys<'_>, rule: Sliding, count: usize) -> Result<Vec<bool>, ConfigError> {
    match rule {
        Sliding::Never => Ok(vec![false]),
        Sliding::LayerTypes { key, every } => {
            // The key is read beside a list as well, so that it does not count as one that nobody reads.
            let told = key.map(|key| period(keys, Size { key, default: every })).transpose()?.or(every);
            match keys.list("layer_types")? {
                Some(types) => layer_types(keys, types, "sliding_attention", count),
                None => Ok(told.map_or_else(|| vec![false], all_but_the_last)),
            }
        }
        Sliding::Every { every, .. } => Ok(all_but_the_last(period(keys, every)?)),
        Sliding::Letters { key } => match keys.text(key)? {
            None | Some("") => Ok(vec![false]),
            Some(letters) if letters.chars().all(|letter| matches!(letter, 'L' | 'G')) => {
                Ok(letters.chars().map(|letter| letter == 'L').collect())
            }
            Some(_) => Err(keys.invalid(key, "a text of the letters L and G")),
        },
    }
}

/// How many layers a period has.
fn period(keys: &Keys<'_>, every: Size) -> Result<usize, ConfigError> {
    match size(keys, every)? {
        layers if layers > LONGEST_PERIOD => Err(keys.invalid(every.key, "at most 4096")),
        layers => Ok(layers),
    }
}

/// Which layers of a period attend, at least one.
fn attending(keys: &Keys<'_>, rule: AttentionLayers, count: usize) -> Result<Vec<bool>, ConfigError> {
    let attends = match rule {
        AttentionLayers::Every(period) => {
            let every = size(keys, period)?;
            if every > count.min(LONGEST_PERIOD) {
                return Err(keys.invalid(period.key, "at most the number of layers, and at most 4096"));
            }
            all_but_the_last(every).into_iter().map(|other| !other).collect()
        }
        AttentionLayers::Listed(list, other) => match (keys.list(list)?, keys.list("layer_types")?) {
            (Some(numbers), _) => numbered(keys, list, numbers, count)?,
            (None, Some(types)) => layer_types(keys, types, other, count)?.into_iter().map(|other| !other).collect(),
            (None, None) => return Err(keys.missing(list)),
        },
    };
    if !attends.contains(&true) {
        return Err(keys.invalid("layer_types", "such that one layer has full attention"));
    }
    Ok(attends)
}

/// The layers whose numbers a list has.
fn numbered(keys: &Keys<'_>, list: &'static str, numbers: &[Value], count: usize) -> Result<Vec<bool>, ConfigError> {
    if count > LONGEST_PERIOD {
        return Err(keys.invalid("num_hidden_layers", "at most 4096 where a list has the numbers of some"));
    }
    let mut flags = vec![false; count];
    for number in numbers {
        let flag = number.as_u64().and_then(|number| flags.get_mut(usize::try_from(number).ok()?));
        *flag.ok_or_else(|| keys.invalid(list, "a list of layers' numbers, from 0"))? = true;
    }
    if numbers.is_empty() {
        return Err(keys.invalid(list, "a list of layers' numbers, one at least"));
    }
    Ok(flags)
}

/// All layers, of which the last ones take keys and values from the last one of their kind before them.
fn borrowed(
    keys: &Keys<'_>,
    key: &'static str,
    period: &[Kind],
    borrowing: usize,
    count: usize,
) -> Result<Vec<Kind>, ConfigError> {
    if count > LONGEST_PERIOD {
        return Err(keys.invalid("num_hidden_layers", "at most 4096 where layers share keys and values"));
    }
    let wanted = "fewer than the layers, with one of each type before those that share";
    let first = count.checked_sub(borrowing).ok_or_else(|| keys.invalid(key, wanted))?;
    let mut all: Vec<Kind> = (0..count).map(|i| period[i % period.len()]).collect();
    let (own, sharing) = all.split_at_mut(first);
    for kind in sharing {
        let source = own.iter().rposition(|other| other.sliding == kind.sliding);
        kind.borrows = Some(source.ok_or_else(|| keys.invalid(key, wanted))?);
    }
    Ok(all)
}

fn all_but_the_last(every: usize) -> Vec<bool> {
    (1..=every).map(|i| i != every).collect()
}

/// Which layers are of another type than full attention: of the one that is called `other`.
fn layer_types(keys: &Keys<'_>, types: &[Value], other: &'static str, count: usize) -> Result<Vec<bool>, ConfigError> {
    let mut others = Vec::new();
    for (layer, found) in types.iter().enumerate() {
        others.push(match found.as_str() {
            Some("full_attention") => false,
            Some(found) if found == other => true,
            Some(found) => return Err(ConfigError::LayerType { layer, found: shortened(found), other }),
            None => return Err(keys.invalid("layer_types", "a list of texts")),
        });
    }
    of_each_layer("layer_types", others, count)
}

/// Those that a list of 1 and 0 says, or all but every `n`th.
fn listed(
    keys: &Keys<'_>,
    list: &'static str,
    every: &'static str,
    default: usize,
    count: usize,
) -> Result<Vec<bool>, ConfigError> {
    let Some(values) = keys.list(list)? else {
        let every = keys.size(every)?.unwrap_or(default);
        if every > LONGEST_PERIOD {
            return Err(keys.invalid(list, "at most 4096"));
        }
        return Ok(all_but_the_last(every));
    };
    all_flags(keys, list, values, count)
}

/// One for each layer, where the key is there.
pub(super) fn flags(keys: &Keys<'_>, list: &'static str, count: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    keys.list(list)?.map(|values| all_flags(keys, list, values, count)).transpose()
}

fn all_flags(keys: &Keys<'_>, list: &'static str, values: &[Value], count: usize) -> Result<Vec<bool>, ConfigError> {
    let one_or_none = |value: &Value| match value {
        Value::Bool(flag) => Some(*flag),
        _ => value.as_u64().filter(|&number| number < 2).map(|number| number == 1),
    };
    let flags: Option<Vec<bool>> = values.iter().map(one_or_none).collect();
    of_each_layer(list, flags.ok_or_else(|| keys.invalid(list, "a list of 1 and 0"))?, count)
}

fn of_each_layer(key: &'static str, flags: Vec<bool>, layers: usize) -> Result<Vec<bool>, ConfigError> {
    if flags.len() != layers {
        return Err(ConfigError::LayerList { key, found: flags.len(), layers });
    }
    Ok(flags)
}
