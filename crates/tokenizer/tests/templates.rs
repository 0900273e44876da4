//! Chat templates render as transformers renders them, and hostile ones end in an error.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, SystemTime};

use redline_tokenizer::{ChatTemplate, Error, Message};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Said>,
    add_generation_prompt: bool,
    output: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

/// `data/make_templates.py` made the file.
#[test]
fn templates_render_as_upstream() {
    let golden: Golden = serde_json::from_str(include_str!("data/templates.json")).unwrap();
    let mut differences = Vec::new();
    for each in golden.templates {
        let (bos, eos) = (each.bos_token.as_deref(), each.eos_token.as_deref());
        let template = ChatTemplate::new(&each.template, bos, eos);
        for case in each.cases {
            let messages: Vec<_> = case
                .messages
                .iter()
                .map(|said| message(&said.role, &said.content))
                .collect();
            // The time that the templates were told.
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
            let found = template.render_at(&messages, case.add_generation_prompt, now);
            let agrees = match (&found, &case.output, &case.error) {
                (Ok(found), Some(output), _) => found == output,
                // Whose words an error has is Jinja's business, but not those of raise_exception.
                (Err(Error::TemplateRaised(found)), _, Some(error)) => found == error,
                (Err(_), _, Some(_)) => true,
                _ => false,
            };
            if !agrees {
                let expected = case.output.or(case.error);
                differences.push(format!("{}:\n  {found:?}\n  {expected:?}", each.name));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn message(role: &str, content: &str) -> Message {
    Message {
        role: role.to_owned(),
        content: content.to_owned(),
    }
}

#[track_caller]
fn render(source: &str) -> Result<String, Error> {
    ChatTemplate::new(source, None, None).render(&[message("user", "hello")], true)
}

#[test]
fn endless_work_runs_out_of_fuel() {
    let templates = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxx') %}\
         {% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='xx') %}\
         {% for i in range(60) %}{% set ns.s = ns.s.replace('x', 'xxxx') %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}\
         {% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{{ '%999999999d' | format(3) }}",
        "{{ range(10) | batch(999999999, 0) | list }}",
    ];
    for template in templates {
        let rendered = render(template);
        assert!(
            matches!(rendered, Err(Error::TemplateFuel { .. })),
            "{template}: {rendered:?}"
        );
    }
    for template in [
        "{{ 'x' * 999999999 }}",
        "{{ '{:999999999}'.format(3) }}",
        "{{ 3 | pprint }}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
}

#[test]
fn endless_output_is_cut_off() {
    let text = "x".repeat(500);
    let template = format!("{{% for a in range(9999) %}}{text}{{% endfor %}}");
    let rendered = render(&template);
    assert!(
        matches!(rendered, Err(Error::TemplateOutput { limit: 1_048_612 })),
        "{rendered:?}"
    );
}

#[test]
fn large_conversations_render() {
    let source = "{% for m in messages %}{{ m.role + ': ' + m.content | trim + '\n' }}{% endfor %}";
    let template = ChatTemplate::new(source, None, None);
    let long = template
        .render(&[message("user", &"word ".repeat(1 << 18))], true)
        .unwrap();
    assert_eq!(long.len(), "user: ".len() + 5 * (1 << 18));
    let many = template
        .render(&vec![message("user", "hello"); 20_000], true)
        .unwrap();
    assert_eq!(many.len(), 20_000 * "user: hello\n".len());
}

#[test]
fn endless_recursion_fails() {
    let macros = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    let error = render(macros).unwrap_err().to_string();
    assert!(error.contains("recursion"), "{error}");
    let loops = "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}";
    assert!(render(loops).is_err());
    assert!(matches!(
        render(&"{% if 1 %}".repeat(10_000)),
        Err(Error::TemplateSyntax(_))
    ));
    for chain in ["-", "not ", "+", "(", "[", "{'a':"] {
        let template = ["{{ ", &chain.repeat(10_000), "1 }}"].concat();
        assert!(
            matches!(render(&template), Err(Error::TemplateSyntax(_))),
            "{chain}"
        );
    }
}

/// The engine recurses over syntax and values; the stack must hold what fuel and source can build.
#[test]
fn deep_syntax_and_values_overflow_no_stack() {
    let branches = ["{% if 0 %}", &"{%elif 0%}".repeat(13_000), "{% endif %}"].concat();
    assert_eq!(render(&branches).unwrap(), "");
    let lists = [
        "{% set x = 1 %}",
        &"{%set x=[x]%}".repeat(10_000),
        "{{ x }}",
    ]
    .concat();
    assert_eq!(render(&lists).unwrap().len(), 20_001);
    let lists = ["[".repeat(40), "ns.x".to_owned(), "]".repeat(40)].concat();
    let wraps = [
        (7_500, "[ns.x]"),
        (7_500, "{'a': ns.x}"),
        (7_500, "(ns.x, 1)"),
        (7_000, "[ns.x] | batch(1)"),
        (7_500, "namespace(x=ns.x)"),
        (1_000, &lists),
    ];
    let ends = [
        "",
        "{{ ns.x }}",
        "{{ ns.x == [ns.x] }}",
        "{{ {ns.x: 1} }}",
        "{{ ns.x | upper }}",
    ];
    for (count, wrap) in wraps {
        for end in ends {
            let template = format!(
                "{{% set ns = namespace(x=[]) %}}\
                 {{% for i in range({count}) %}}{{% set ns.x = {wrap} %}}{{% endfor %}}{end}"
            );
            let rendered = render(&template);
            assert!(rendered.is_ok(), "{wrap} {end}: {:?}", rendered.err());
        }
    }
}

#[test]
fn errors_name_what_went_wrong() {
    let check = |source: &str, parts: [&str; 2]| {
        let error = render(source).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    check("a\n{% if %}", ["malformed", ":2"]);
    check("a\n\n{{ f(1) }}", ["f is unknown", ":3"]);
    check(
        "{{ raise_exception('no ' ~ messages[0].role) }}",
        ["refuses", "no user"],
    );
    check("{% include 'x' %}", ["malformed", "include"]);
    check("{{ messages[0].content.fly() }}", ["failed", "fly"]);
    check(&"x".repeat(200_000), ["200000 bytes", "131072"]);
}

#[test]
fn the_time_is_that_of_the_caller() {
    let source = "{{ strftime_now('%d %B %Y, %H:%M') }}";
    let template = ChatTemplate::new(source, None, None);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    assert_eq!(
        template.render_at(&[], true, now).unwrap(),
        "09 September 2001, 01:46"
    );
    assert!(render("{{ strftime_now('%!') }}").is_err());
}
