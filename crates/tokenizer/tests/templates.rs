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

/// A list that holds one list twice, and that another twice: small, but not to whoever walks it.
#[test]
fn values_whose_text_is_endless_run_out_of_fuel() {
    let lists = "{% set ns = namespace(x=[1], y=[1]) %}\
        {% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}\
        {% set x = ns.x %}";
    let ends = [
        "{{ x }}",
        "{% set t %}{{ x }}{% endset %}",
        "{{ x ~ '' }}",
        "{{ x == ns.y }}",
        "{{ x < ns.y }}",
        "{{ 0 < x != ns.y }}",
        "{{ x in [ns.y] }}",
        "{{ x in 'text' }}",
        "{{ {x: 1} }}",
        "{{ {}[x] }}",
        "{{ {'a': 1}.get(x) }}",
        "{{ x | string }}",
        "{{ x | upper }}",
        "{{ x | join }}",
        "{{ x | tojson }}",
        "{{ '%s' | format(x) }}",
        "{{ [x, ns.y] | sort }}",
        "{{ [x, ns.y] | unique }}",
        "{{ [x, ns.y] | map('string') }}",
        "{{ 'a' | replace(*['a', x]) }}",
        "{{ 'a' | join(d=x) }}",
        "{{ x is eq(ns.y) }}",
        "{{ x is in([ns.y]) }}",
        "{{ '{}'.format(x) }}",
        "{{ ''.join([x]) }}",
        "{{ [x].count(ns.y) }}",
        "{{ [x, ns.y] | selectattr(0, 'eq', x) | list }}",
        "{{ raise_exception(x) }}",
        "{{ strftime_now(x) }}",
        "{% for y in [x, ns.y] %}{{ loop.changed(y) }}{% endfor %}",
        "{% macro f() %}{{ caller() ~ x }}{% endmacro %}{% call f() %}{% endcall %}",
        "{% filter upper %}{{ x }}{% endfilter %}",
        "{% set ns.x = ns %}{{ ns ~ '' }}",
        "{% set l = [1] %}{% set l = l * 99999999 %}{{ l | length }}",
        "{% for i in range(60) %}{% set ns.y = ns.y + ns.y %}{% endfor %}{{ ns.y | length }}",
    ];
    for end in ends {
        let rendered = render(&[lists, end].concat());
        assert!(
            matches!(rendered, Err(Error::TemplateFuel { .. })),
            "{end}: {rendered:?}"
        );
    }
}

/// The engine makes these lists when they are asked for.
#[test]
fn chains_of_slices_are_short() {
    let check = |step, expected| {
        let template = format!(
            "{{% set ns = namespace(x=range(9)) %}}\
             {{% for i in range(3000) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ ns.x }}}}"
        );
        assert_eq!(render(&template).unwrap(), expected, "{step}");
    };
    check("ns.x[1:]", "[]");
    check("ns.x | reverse", "[0, 1, 2, 3, 4, 5, 6, 7, 8]");
    let empty = "{% set ns = namespace(x=[]) %}\
        {% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}";
    assert_eq!(render(empty).unwrap(), "[]");
    let grown = "{% set ns = namespace(x=[]) %}\
        {% for i in range(1000) %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x | length }}";
    assert_eq!(render(grown).unwrap(), "1000");
}

#[test]
fn a_repeated_constant_is_not_made_while_compiling() {
    for repeated in [
        "{{ ([1] * 999999999) ~ '' }}",
        "{{ [1] * 999999999 == 9 * [1] }}",
    ] {
        let error = render(repeated).unwrap_err().to_string();
        assert!(error.contains("list and a product"), "{error}");
    }
}

#[test]
fn arguments_reach_filters_tests_and_methods() {
    let check = |source, expected| assert_eq!(render(source).unwrap(), expected, "{source}");
    check("{{ 'a-b' | replace('-', '+') | upper }}", "A+B");
    check("{{ 'a-b' | replace(*['-', '+']) }}", "a+b");
    check("{{ [1, 2] | join(d='+') }}", "1+2");
    check("{{ [3, 1] | sort(reverse=true) | first }}", "3");
    check(
        "{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'eq', 2) | list }}",
        "[{'a': 2}]",
    );
    check(
        "{{ 3 is divisibleby(2) }} {{ 3 is in([1, 3]) }}",
        "False True",
    );
    check(
        "{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' not in ['b'] }}",
        "True False True",
    );
    check("{{ {messages[0].role: 1, 'b': 2}['user'] }}", "1");
    check(
        "{{ 'a b'.split() | length }}{{ '{} {}'.format(1, 2) }}{{ {'a': 1}.get('a') }}",
        "21 21",
    );
    check(
        "{% for i in [1, 1] %}{{ loop.changed(i) }}{% endfor %}",
        "TrueFalse",
    );
    check("{% if true %}{{ 'a' ~ 1 }}{% endif %}", "a1");
}

#[test]
fn endless_output_is_cut_off() {
    let text = "x".repeat(1_500);
    let template = format!("{{% for a in range(999) %}}{text}{{% endfor %}}");
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
        (6_000, "{'a': ns.x}"),
        (7_500, "(ns.x, 1)"),
        (5_000, "[ns.x] | batch(1)"),
        (7_500, "namespace(x=ns.x)"),
        (900, &lists),
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
