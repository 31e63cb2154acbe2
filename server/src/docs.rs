//! The pages of the reference that are made from the code.

use std::fmt::Write;

use nexus_flight_catalog::{Opt, OptType, Spec};

/// `docs/src/connectors.md`: what each connector declares about itself, and nothing more.
pub fn connectors() -> String {
    let mut page = String::from(
        "# Connectors\n\nThis page is made from the code by `nexus docs connectors`; a test holds the two together.\n\n\
         ## What each kind offers\n\n",
    );
    let names = nexus_sources::SPECS.first().map(|spec| spec.capabilities.entries().map(|(name, _)| name));
    let header: Vec<&str> = names.into_iter().flatten().collect();
    push(&mut page, format_args!("| kind | {} | proof |\n|---|{}---|\n", header.join(" | "), "---|".repeat(header.len())));
    for spec in nexus_sources::SPECS {
        let declared = spec.capabilities.entries().map(|(_, declared)| if declared { "yes" } else { "–" });
        push(&mut page, format_args!("| `{}` | {} | {} |\n", spec.kind, declared.join(" | "), spec.proof.describe()));
    }
    for spec in nexus_sources::SPECS {
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
        spec.options.iter().for_each(|option| row(page, option));
    }
    push(page, format_args!("\n{}\n", spec.docs.trim()));
}

fn row(page: &mut String, option: &Opt) {
    let value = match option.value {
        OptType::String => "text",
        OptType::Boolean => "true or false",
        OptType::Integer => "whole number",
        OptType::Strings => "list of texts",
        OptType::Tables => "table of tables",
    };
    let notes: Vec<&str> = [(option.required, "required"), (option.secret, "secret")]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, note)| note)
        .collect();
    push(page, format_args!("| `{}` | {value} | {} | {} |\n", option.name, notes.join(", "), option.help));
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = page.write_fmt(text);
}
