//! The pages of the reference that are made from the code.

use std::fmt::Write;

use nexus_flight_catalog::{Opt, OptType, Spec};

use crate::kinds::SPECS;

/// `docs/src/connectors.md`: what each connector declares about itself, and nothing more.
pub fn connectors() -> String {
    let mut page = String::from(
        "# Connectors\n\nThis page is made from the code by `nexus docs connectors`; a test holds the two together.\n\n\
         ## What each kind offers\n\n",
    );
    let names = SPECS.first().map(|spec| spec.capabilities.entries().map(|(name, _)| name));
    let header: Vec<&str> = names.into_iter().flatten().collect();
    push(&mut page, format_args!("| kind | {} | proof |\n|---|{}---|\n", header.join(" | "), "---|".repeat(header.len())));
    for spec in SPECS.iter() {
        let declared = spec.capabilities.entries().map(|(_, declared)| if declared { "yes" } else { "–" });
        push(&mut page, format_args!("| `{}` | {} | {} |\n", spec.kind, declared.join(" | "), spec.proof.describe()));
    }
    page.push_str(
        "\n`append` is rows for tables that are there, by `INSERT` and by ingest in the mode append. `ingest` is what goes beyond that: \
         tables are made, replaced and dropped, and there are `UPDATE` and `DELETE`, which write the whole table anew without `changes`.\n",
    );
    for spec in SPECS.iter() {
        section(&mut page, spec);
    }
    page
}

fn section(page: &mut String, spec: &Spec) {
    push(page, format_args!("\n## `kind = \"{}\"`\n\n{}.\n\n", spec.kind, capitalised(spec.summary)));
    if spec.options.is_empty() {
        page.push_str("It takes no options.\n");
    } else {
        page.push_str("| option | value | | what it does |\n|---|---|---|---|\n");
        rows(page, "", spec.options);
    }
    // The page of the connector is a part of this one, two levels down, and its title is here already.
    let lines = spec.docs.trim().lines().skip(1);
    let below = lines.map(|line| if line.starts_with('#') { format!("#{line}") } else { line.to_owned() });
    push(page, format_args!("\n{}\n", below.collect::<Vec<_>>().join("\n").trim()));
}

/// The options, each before the keys of its tables.
fn rows(page: &mut String, outer: &str, options: &[Opt]) {
    for option in options {
        row(page, outer, option);
        match option.value {
            OptType::Tables(options) => rows(page, &format!("{outer}{}.NAME.", option.name), options),
            OptType::Records(options) => rows(page, &format!("{outer}{}.", option.name), options),
            _ => {}
        }
    }
}

fn row(page: &mut String, outer: &str, option: &Opt) {
    let value = option.value.describe();
    let notes: Vec<&str> = [(option.required, "required"), (option.secret, "secret")]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, note)| note)
        .collect();
    push(page, format_args!("| `{outer}{}` | {value} | {} | {} |\n", option.name, notes.join(", "), option.help));
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = page.write_fmt(text);
}
