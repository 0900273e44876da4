#!/usr/bin/env python3
"""Makes templates.json: what transformers' chat template environment renders.

    make_templates.py CACHE

CACHE is the folder that `cargo xtask fetch` fills. The models' own templates come from there, those that
no package carries from templates/ beside this file, as their publishers have them; the small ones below exercise one thing each that templates of models use.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)

USER = {"role": "user", "content": "Hello, who are you?"}
SYSTEM = {"role": "system", "content": "You are brief."}
ANSWER = {"role": "assistant", "content": "A model."}
MORE = {"role": "user", "content": "  Quotes \" and 'these', <b>&amp;</b>,\nlines, 漢字 😀  "}
THOUGHT = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}

CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [USER, ANSWER, MORE],
    [SYSTEM, USER, THOUGHT, MORE, THOUGHT],
    [USER, USER],
    [{"role": "tool", "content": "42"}],
    [],
]

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

SMALL = {
    "whitespace": "  {% if true %}\n  a\n  {%- if true %} b {%+ endif %}\n{% endif %}\n\n  {{ 1 }}\n{# note #}\nend\n",
    "loop controls": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ m.role }}{% if loop.index == 3 %}{% break %}{% endif %};{% endfor %}",
    "loop variables": "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ loop.last }} "
    "{{ loop.revindex0 }} {{ loop.previtem.role if loop.previtem is defined }} "
    "{{ loop.nextitem.role if loop.nextitem is defined }}|{% endfor %}",
    "namespace": "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + m.content|length %}"
    "{% set ns.last = m.role %}{% endfor %}{{ ns.n }} {{ ns.last }}",
    "string methods": "{% for m in messages %}{% set c = m.content %}{{ c.strip() }}|{{ c.split(' ')[0] }}|"
    "{{ c.upper() }}|{{ c.lower() }}|{{ c.title() }}|{{ c.startswith('H') }}|{{ c.endswith('?') }}|"
    "{{ c.replace('e', '3') }}|{{ c.find('who') }}|{{ c.lstrip() }}|{{ c.rstrip('? ') }}|"
    "{{ c.split('\\n') | length }}|{{ c.count('e') }}|{{ ', '.join(c.split()) }}\n{% endfor %}",
    "dict methods": "{% for m in messages %}{{ m.get('role') }} {{ m.get('name', 'none') }} "
    "{% for k, v in m.items() %}{{ k }}={{ v | trim }};{% endfor %}{{ m.keys() | list | length }}\n{% endfor %}",
    "filters": "{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user')"
    " | list | length }} {{ name | default('anon') }} {{ 'abc' | capitalize }} {{ [3, 1, 2] | sort | join }} "
    "{{ 'x' | indent(2, true) }} {{ messages | rejectattr('role', 'equalto', 'user') | list | length }} "
    "{{ [1, 2] | first }} {{ [1, 2] | last }} {{ 'a b' | replace(' ', '_') }} {{ '3' | int + 1 }}",
    "constants": "{{ none }} {{ true }} {{ false }} {{ 1.5 }} {{ 2.0 }} {{ 10 // 3 }} {{ 7 % 3 }} {{ 7 / 2 }} {{ 2 ** 5 }} "
    "{{ undefined_name }}[{{ tools }}]",
    "json": "{{ messages | tojson }} {{ {'b': [1, 2.5, none, true], 'a': {'x': '<é\\n\"'}} | tojson }} "
    "{{ [] | tojson }} {{ {} | tojson }}\n{{ messages[:1] | tojson(indent=2) }}",
    "slices": "{{ messages[1:] | length }} {{ messages[:-1] | length }} {{ messages[::-1] | map(attribute='role') | join(' ') }} "
    "{{ 'abcdef'[1:3] }} {{ 'abcdef'[-2:] }}",
    "tests": "{{ messages is iterable }} {{ 'a' is string }} {{ {} is mapping }} {{ 1 is number }} {{ tools is none }} "
    "{{ x is defined }} {{ x is undefined }} {{ 'a' in 'abc' }} {{ 'role' in messages[0] }} {{ 3 is odd }}",
    "macro": "{% macro block(role, text='-') %}[{{ role }}:{{ text }}]{% endmacro %}"
    "{% for m in messages %}{{ block(m.role, m.content | trim) }}{% endfor %}{{ block('x') }}",
    "call and set block": "{% set text %}<{{ messages | length }}>{% endset %}{{ text }}{{ text | length }}",
    "concatenation": "{{ 'a' ~ 1 ~ 'b' }} {{ 'ab' * 2 }} {{ '%s-%d' | format('x', 3) }} {{ [1] + [2] }} {{ ('a', 1) }}",
    "tokens": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    "raise": "{% if messages | length > 1 %}{{ raise_exception('Too many: ' ~ messages | length) }}{% endif %}ok",
    "conditional": "{{ 'gen' if add_generation_prompt else 'plain' }}{% if messages and messages[0].role == 'system' %}"
    "{% set system = messages[0].content %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "[{{ system }}]{{ messages | length }}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{%- endgeneration %}{% else %}{{ m.role }}{% endif %}\n{% endfor %}",
    "recursion of scopes": "{% for m in messages %}{% for c in m.content[:3] %}{{ loop.index0 }}{{ c }}{% endfor %}"
    "{{ loop.index0 }}{% else %}empty{% endfor %}",
}


def models(cache):
    """Name, template, BOS and EOS of the models' own templates, and where they are from."""
    from gguf import GGUFReader

    path = cache / "models/smollm2-135m-instruct-q4_1.gguf"
    fields = GGUFReader(path).fields
    yield "smollm2", fields["tokenizer.chat_template"].contents(), "<|im_start|>", "<|im_end|>", path.name
    for each in json.loads((HERE / "vocabularies.json").read_text()):
        for file in each["files"]:
            if file["to"].endswith(".config.json"):
                config = json.loads((cache / "tokenizers" / file["to"]).read_text())
                if "chat_template" not in config:
                    continue
                source = f"{each['npm']} {file['from']}"
                yield each["name"], config["chat_template"], config["bos_token"], config["eos_token"], source


# Published with the model: file, BOS, EOS, model.
PUBLISHED = [
    ("llama2", "<s>", "</s>", "meta-llama/Llama-2-7b-chat-hf"),
    ("llama3.2", "<|begin_of_text|>", "<|eot_id|>", "meta-llama/Llama-3.2-3B-Instruct"),
    ("mistral", "<s>", "</s>", "mistralai/Mistral-7B-Instruct-v0.1"),
    ("phi3", "<s>", "<|endoftext|>", "microsoft/Phi-3.5-mini-instruct"),
    ("gemma2", "<bos>", "<eos>", "google/gemma-2-2b-it"),
    ("gpt-oss", "<|startoftext|>", "<|return|>", "openai/gpt-oss-120b"),
]


def published():
    for name, bos, eos, source in PUBLISHED:
        yield name, (HERE / "templates" / f"{name}.jinja").read_text(), bos, eos, source


def case(template, conversation, add_generation_prompt, tokens):
    entry = {"messages": conversation, "add_generation_prompt": add_generation_prompt}
    try:
        entry["output"] = _compile_jinja_template(template).render(
            messages=conversation,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            strftime_now=NOW.strftime,
            **tokens,
        )
    except jinja2.exceptions.TemplateError as error:
        entry["error"] = str(error)
    return entry


def main():
    cache = pathlib.Path(sys.argv[1])
    named = list(models(cache)) + list(published()) + [("chatml", CHATML, None, None, "make_templates.py")]
    named += [(name, text, "<s>", "</s>", "make_templates.py") for name, text in SMALL.items()]
    result = []
    for name, template, bos, eos, source in named:
        tokens = {key: text for key, text in [("bos_token", bos), ("eos_token", eos)] if text}
        cases = [case(template, each, add, tokens) for each in CONVERSATIONS for add in (False, True)]
        result.append({"name": name, "source": source, "template": template, **tokens, "cases": cases})
    made_with = f"transformers {transformers.__version__}, Jinja2 {jinja2.__version__}"
    text = ",\n".join(json.dumps(entry) for entry in result)
    (HERE / "templates.json").write_text(f'{{"made_with": {json.dumps(made_with)}, "templates": [\n{text}\n]}}\n')


main()
