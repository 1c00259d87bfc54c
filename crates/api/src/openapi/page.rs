//! The description as a page: plain HTML, so that it can be read, searched and printed anywhere.

use std::fmt::Write as _;

use serde_json::Value;

/// The whole page.
pub(super) fn html(described: &Value) -> String {
    let mut page = Page {
        described,
        html: String::new(),
    };
    page.write();
    page.html
}

struct Page<'a> {
    described: &'a Value,
    html: String,
}

/// Appends formatted HTML; a string takes all that is written to it.
macro_rules! put {
    ($page:expr, $($what:tt)*) => {
        write!($page.html, $($what)*).expect("a string takes it")
    };
}

impl Page<'_> {
    fn write(&mut self) {
        let info = &self.described["info"];
        let title = text(&info["title"]);
        put!(
            self,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
             <p>Version {}. The same for programs: <a href=\"/openapi.json\">openapi.json</a>.</p>\n<p>{}</p>\n",
            text(&info["version"]),
            text(&info["description"]),
        );
        self.proofs();
        self.headers();
        for tag in items(&self.described["tags"]) {
            put!(
                self,
                "<h2>{}</h2>\n<p>{}</p>\n",
                text(&tag["name"]),
                text(&tag["description"])
            );
            for (path, method, operation) in operations(self.described) {
                if operation["tags"][0] == tag["name"] {
                    self.operation(path, method, operation);
                }
            }
        }
        put!(self, "<h2>Bodies</h2>\n");
        for (name, schema) in fields(&self.described["components"]["schemas"]) {
            self.schema(name, schema);
        }
        put!(self, "</body></html>\n");
    }

    /// How callers prove who they are.
    fn proofs(&mut self) {
        put!(
            self,
            "<h2>Proof</h2>\n<p>In the header Authorization: Bearer and the text, but for relays.</p>\n<dl>\n"
        );
        for (name, scheme) in fields(&self.described["components"]["securitySchemes"]) {
            put!(
                self,
                "<dt>{}</dt><dd>{}</dd>\n",
                escaped(name),
                text(&scheme["description"])
            );
        }
        put!(self, "</dl>\n");
    }

    /// What answers say beside their bodies.
    fn headers(&mut self) {
        put!(self, "<h2>Headers of answers</h2>\n<dl>\n");
        for (name, header) in fields(&self.described["components"]["headers"]) {
            put!(
                self,
                "<dt><code>{}</code></dt><dd>{}. {}</dd>\n",
                escaped(name),
                text(&header["description"]),
                form(&header["schema"]),
            );
        }
        put!(self, "</dl>\n");
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value) {
        let id = text(&operation["operationId"]);
        put!(
            self,
            "<section id=\"{id}\"><h3><code>{} {}</code></h3>\n<p><b>{}.</b> {}</p>\n",
            method.to_uppercase(),
            escaped(path),
            text(&operation["summary"]),
            text(&operation["description"]),
        );
        let proofs: Vec<String> = items(&operation["security"])
            .flat_map(fields)
            .map(proof)
            .collect();
        let proofs = if proofs.is_empty() {
            "none".to_owned()
        } else {
            proofs.join(", or ")
        };
        put!(self, "<p>Proof: {proofs}.</p>\n<table>\n");
        for parameter in items(&operation["parameters"]) {
            put!(
                self,
                "<tr><td>{} <code>{}</code></td><td>{} {}</td></tr>\n",
                text(&parameter["in"]),
                text(&parameter["name"]),
                form(&parameter["schema"]),
                text(&parameter["description"]),
            );
        }
        if let Some((_, content)) = fields(&operation["requestBody"]["content"]).next() {
            put!(
                self,
                "<tr><td>body</td><td>{}</td></tr>\n",
                form(&content["schema"])
            );
        }
        for (status, response) in fields(&operation["responses"]) {
            let response = self.resolved(response);
            let body = fields(&response["content"]).next();
            let body = body
                .map(|(_, content)| form(&content["schema"]))
                .unwrap_or_default();
            put!(
                self,
                "<tr><td>{}</td><td>{} {body}</td></tr>\n",
                escaped(status),
                text(&response["description"]),
            );
        }
        put!(self, "</table></section>\n");
    }

    fn schema(&mut self, name: &str, schema: &Value) {
        let name = escaped(name);
        put!(
            self,
            "<section id=\"{name}\"><h3>{name}</h3>\n<p>{}</p>\n",
            text(&schema["description"])
        );
        let required: Vec<&str> = items(&schema["required"])
            .filter_map(Value::as_str)
            .collect();
        let mut rows = fields(&schema["properties"]).peekable();
        if rows.peek().is_none() {
            put!(self, "<p>{}</p>\n", form(schema));
        }
        put!(self, "<table>\n");
        for (field, of) in rows {
            let may = if required.contains(&field) {
                ""
            } else {
                " (may be left out)"
            };
            put!(
                self,
                "<tr><td><code>{}</code></td><td>{}{may}. {}</td></tr>\n",
                escaped(field),
                form(of),
                text(&of["description"]),
            );
        }
        put!(self, "</table></section>\n");
    }

    /// What a reference stands for.
    fn resolved<'a>(&'a self, response: &'a Value) -> &'a Value {
        let place = response["$ref"]
            .as_str()
            .and_then(|place| place.strip_prefix('#'));
        place
            .and_then(|place| self.described.pointer(place))
            .unwrap_or(response)
    }
}

/// Each operation with its path and method.
fn operations(described: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    fields(&described["paths"]).flat_map(|(path, methods)| {
        fields(methods).map(move |(method, operation)| (path, method, operation))
    })
}

fn proof((name, scopes): (&str, &Value)) -> String {
    let scopes: Vec<String> = items(scopes).map(text).collect();
    if scopes.is_empty() {
        escaped(name)
    } else {
        format!("{} with the scope {}", escaped(name), scopes.join(", "))
    }
}

/// What a value must look like, in a few words.
fn form(schema: &Value) -> String {
    if let Some(place) = schema["$ref"].as_str() {
        let name = escaped(place.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    let choices: Vec<String> = items(&schema["oneOf"])
        .chain(items(&schema["enum"]))
        .map(choice)
        .collect();
    if !choices.is_empty() {
        return choices.join(" or ");
    }
    let kinds: Vec<String> = items(&schema["type"]).map(text).collect();
    let kind = if kinds.is_empty() {
        text(&schema["type"])
    } else {
        kinds.join(" or ")
    };
    let mut said = match kind.as_str() {
        "array" => format!("list of {}", form(&schema["items"])),
        _ => kind,
    };
    for (key, words) in BOUNDS {
        let bound = &schema[key];
        if !bound.is_null() {
            let shown = bound
                .as_str()
                .map_or_else(|| bound.to_string(), str::to_owned);
            put_words(&mut said, words, &escaped(&shown));
        }
    }
    said
}

fn choice(one: &Value) -> String {
    match one.as_str() {
        Some(word) => format!("<code>{}</code>", escaped(word)),
        None if one["type"] == "null" => "null".to_owned(),
        None => form(one),
    }
}

fn put_words(said: &mut String, words: &str, bound: &str) {
    said.push_str(", ");
    said.push_str(&words.replace("{}", bound));
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn fields(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.as_str(), value))
}

/// The text that stands there, for HTML; nothing when there is none.
fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// How bounds of a schema read.
const BOUNDS: [(&str, &str); 9] = [
    ("const", "always {}"),
    ("format", "{}"),
    ("pattern", "like <code>{}</code>"),
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {}"),
    ("maxItems", "at most {}"),
];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}\
h2{margin-top:2.5rem;border-bottom:1px solid #ccc}h3{margin:1.5rem 0 .3rem}p{margin:.3rem 0}\
table{border-collapse:collapse;margin:.5rem 0}td{padding:.15rem 1rem .15rem 0;vertical-align:top}\
code{background:#f3f3f3;padding:0 .2rem}dt{font-weight:bold}";
