//! As much of JSON Schema as the document uses: does a value match, and values that match or do not.

use serde_json::{Map, Value, json};

/// A source of chance that says the same every time.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (below.max(1) as u64)).expect("small")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.next(from.len())]
    }

    pub(super) fn word(&mut self) -> String {
        let words = [
            "web",
            "db",
            "n1",
            "n2",
            "n3",
            "uuid-of-web",
            "",
            "ä b",
            "..",
            "%",
            "x\ny",
            "a/b",
            "7",
        ];
        match self.next(12) {
            0 => "long".repeat(200),
            _ => (*self.pick(&words)).into(),
        }
    }
}

/// A document and its components.
pub(crate) struct Shapes<'a>(pub(crate) &'a Value);

impl Shapes<'_> {
    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let Some(reference) = schema["$ref"].as_str() else { return schema };
        let path = reference.strip_prefix('#').expect("in this document");
        let found = self.0.pointer(path).unwrap_or_else(|| panic!("{reference} is not there"));
        self.resolve(found)
    }

    /// Why `value` does not match, if it does not.
    pub(crate) fn mismatch(&self, schema: &Value, value: &Value) -> Option<String> {
        if let Some(all) = schema.as_bool() {
            return (!all).then(|| format!("{value} where nothing may be"));
        }
        if schema.get("$ref").is_some() && schema.as_object().is_some_and(|it| it.len() > 1) {
            let mut rest = schema.clone();
            rest.as_object_mut().expect("an object").remove("$ref");
            if let Some(why) = self.mismatch(&rest, value) {
                return Some(why);
            }
        }
        let schema = self.resolve(schema);
        self.wrong_type(schema, value)
            .or_else(|| self.wrong_choice(schema, value))
            .or_else(|| wrong_number(schema, value))
            .or_else(|| self.wrong_parts(schema, value))
    }

    fn wrong_type(&self, schema: &Value, value: &Value) -> Option<String> {
        let wanted = match &schema["type"] {
            Value::Null => return None,
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        let is = |kind: &Value| match kind.as_str().expect("a type") {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("unknown type {other}"),
        };
        (!wanted.iter().any(is)).then(|| format!("{value} is no {wanted:?}"))
    }

    fn wrong_choice(&self, schema: &Value, value: &Value) -> Option<String> {
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            return Some(format!("{value} is none of {all:?}"));
        }
        if let Some(one) = schema.get("const")
            && one != value
        {
            return Some(format!("{value} is not {one}"));
        }
        for key in ["oneOf", "anyOf"] {
            let Some(all) = schema[key].as_array() else { continue };
            let misses: Vec<_> = all.iter().filter_map(|it| self.mismatch(it, value)).collect();
            if misses.len() == all.len() {
                return Some(format!("none of {key}: {}", misses.join("; ")));
            }
        }
        let all = schema["allOf"].as_array();
        all.and_then(|all| all.iter().find_map(|it| self.mismatch(it, value)))
    }

    fn wrong_parts(&self, schema: &Value, value: &Value) -> Option<String> {
        match value {
            Value::Array(items) => {
                let of = schema.get("items")?;
                items.iter().find_map(|item| self.mismatch(of, item))
            }
            Value::Object(map) => self.wrong_fields(schema, map),
            _ => None,
        }
    }

    fn wrong_fields(&self, schema: &Value, map: &Map<String, Value>) -> Option<String> {
        let required = schema["required"].as_array().into_iter().flatten();
        let mut missing = required.filter_map(Value::as_str).filter(|key| !map.contains_key(*key));
        if let Some(key) = missing.next() {
            return Some(format!("{key} is missing"));
        }
        map.iter().find_map(|(key, value)| {
            let of =
                schema["properties"].get(key).or_else(|| schema.get("additionalProperties"))?;
            self.mismatch(of, value).map(|why| format!("{key}: {why}"))
        })
    }

    /// A value that matches.
    pub(super) fn generate(&self, schema: &Value, chance: &mut Chance) -> Value {
        let schema = self.resolve(schema);
        if let Some(one) = schema.get("const") {
            return one.clone();
        }
        for key in ["enum", "oneOf", "anyOf"] {
            let Some(all) = schema[key].as_array() else { continue };
            let one = chance.pick(all);
            return if key == "enum" { one.clone() } else { self.generate(one, chance) };
        }
        let kind = match &schema["type"] {
            Value::Array(list) => chance.pick(list).as_str().expect("a type"),
            one => one.as_str().unwrap_or("any"),
        };
        match kind {
            "null" => Value::Null,
            "boolean" => json!(chance.next(2) == 0),
            "integer" | "number" => number(schema, chance),
            "string" => json!(chance.word()),
            "array" => {
                let count = chance.next(4);
                (0..count).map(|_| self.generate(&schema["items"], chance)).collect()
            }
            "object" => self.object(schema, chance),
            _ => chance.pick(&[json!({}), json!(null), json!({"vms": []}), json!(7)]).clone(),
        }
    }

    fn object(&self, schema: &Value, chance: &mut Chance) -> Value {
        let mut map = Map::new();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (key, of) in schema["properties"].as_object().into_iter().flatten() {
            if required.contains(&json!(key)) || chance.next(2) == 0 {
                map.insert(key.clone(), self.generate(of, chance));
            }
        }
        let more = schema.get("additionalProperties").filter(|of| of.is_object());
        if let Some(of) = more {
            let count = chance.next(3);
            map.extend((0..count).map(|_| (chance.word(), self.generate(of, chance))));
        }
        Value::Object(map)
    }
}

fn wrong_number(schema: &Value, value: &Value) -> Option<String> {
    let number = value.as_f64()?;
    let below = schema["minimum"].as_f64().is_some_and(|least| number < least);
    let above = schema["maximum"].as_f64().is_some_and(|most| number > most);
    (below || above).then(|| format!("{value} is out of range of {schema}"))
}

fn number(schema: &Value, chance: &mut Chance) -> Value {
    let least = schema["minimum"].as_i64().unwrap_or(-5);
    let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
    let few = [0, 1, 500, 1_000, 60_000, most];
    json!((*chance.pick(&few)).clamp(least, most))
}

/// The same value with something wrong in it.
pub(super) fn spoil(value: &Value, chance: &mut Chance) -> Value {
    let wrong = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!([[]]),
        json!({"q": 1}),
        json!(u64::MAX),
    ];
    match value {
        Value::Object(map) if !map.is_empty() && chance.next(3) > 0 => {
            let mut map = map.clone();
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = chance.pick(&keys).clone();
            match chance.next(3) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}!"), json!(1))),
                _ => {
                    let spoilt = spoil(&map[&key], chance);
                    map.insert(key, spoilt);
                }
            }
            Value::Object(map)
        }
        _ => chance.pick(&wrong).clone(),
    }
}

#[test]
fn what_matches_is_told_from_what_does_not() {
    let document = json!({"c": {"T": {"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": ["integer", "null"], "minimum": 0}, "b": {"enum": ["x", "y"]}}}}});
    let (shapes, of) = (Shapes(&document), json!({"$ref": "#/c/T"}));
    for good in [json!({"a": 1}), json!({"a": null, "b": "x"})] {
        assert_eq!(shapes.mismatch(&of, &good), None);
    }
    for bad in [
        json!({}),
        json!({"a": -1}),
        json!({"a": "1"}),
        json!({"a": 1, "b": "z"}),
        json!([]),
        json!({"a": 1, "c": 1}),
    ] {
        assert!(shapes.mismatch(&of, &bad).is_some(), "{bad}");
    }
    let mut chance = Chance(7);
    for _ in 0..100 {
        let made = shapes.generate(&of, &mut chance);
        assert_eq!(shapes.mismatch(&of, &made), None, "{made}");
    }
}
