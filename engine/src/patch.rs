//! Merge patches (RFC 7396): what changed between two states, so that a watcher need not read all of it again.

use serde_json::{Map, Value};

/// Ages and what else flows with time by itself: told once a second, not with each change.
const AGES: [&str; 11] = [
    "at",
    "wall_ms",
    "left",
    "network_age",
    "storage_age",
    "beat_age",
    "page_age",
    "lease_left",
    "age",
    "longest_gap_ms",
    "longest_gap_lately_ms",
];

/// What makes `new` of `old`, if anything; without `ages`, ages that were and are known stay as they were told.
pub(crate) fn diff(old: &Value, new: &Value, ages: bool) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let patch = diff_maps(old, new, ages);
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ => (old != new).then(|| new.clone()),
    }
}

fn diff_maps(old: &Map<String, Value>, new: &Map<String, Value>, ages: bool) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in new.iter().filter(|(_, value)| !value.is_null()) {
        let known = old.get(key).filter(|known| !known.is_null());
        let told = match known {
            Some(Value::Number(_)) if !ages && AGES.contains(&key.as_str()) => None,
            Some(known) => diff(known, value, ages),
            None => Some(value.clone()),
        };
        patch.extend(told.map(|told| (key.clone(), told)));
    }
    let is_gone = |key: &str| new.get(key).is_none_or(Value::is_null);
    let gone = old.iter().filter(|(key, value)| !value.is_null() && is_gone(key));
    patch.extend(gone.map(|(key, _)| (key.clone(), Value::Null)));
    patch
}

/// `state` with `patch`: what a watcher does with it.
pub(crate) fn merge(state: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *state = patch.clone();
        return;
    };
    if !state.is_object() {
        *state = Value::Object(Map::new());
    }
    let Value::Object(state) = state else { return };
    for (key, value) in patch {
        if value.is_null() {
            state.remove(key);
        } else {
            merge(state.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [2, 3]})),
            (json!(["a"]), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        ];
        for (mut target, patch, expected) in cases {
            merge(&mut target, &patch);
            assert_eq!(target, expected);
        }
    }

    #[test]
    fn what_is_not_told_is_the_same() {
        let old = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x", "e": null});
        let new = json!({"a": {"b": 2, "c": [1, 2]}, "e": {"f": 1}});
        let patch = diff(&old, &new, true).expect("they differ");
        assert_eq!(patch, json!({"a": {"b": 2}, "d": null, "e": {"f": 1}}));
        let mut state = old;
        merge(&mut state, &patch);
        assert_eq!(state, new);
        assert_eq!(diff(&state, &new, true), None);
    }

    #[test]
    fn ages_alone_are_no_news_but_their_coming_and_going_is() {
        let old = json!({"lease": {"left": 5, "text": "good"}, "n": {"beat_age": null}});
        let aged = json!({"lease": {"left": 4, "text": "good"}, "n": {"beat_age": null}});
        assert_eq!(diff(&old, &aged, false), None);
        assert_eq!(diff(&old, &aged, true), Some(json!({"lease": {"left": 4}})));
        let lost = json!({"lease": {"left": null, "text": "run out"}, "n": {"beat_age": 7}});
        let told = json!({"lease": {"left": null, "text": "run out"}, "n": {"beat_age": 7}});
        assert_eq!(diff(&old, &lost, false), Some(told));
    }
}
