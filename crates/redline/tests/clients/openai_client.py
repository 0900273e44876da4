"""`redline serve` through the `openai` package: answers, streams, errors, and a crowd.

    pip install openai
    redline serve smollm2-135m --port 8080 --context 1024 --max-running 8
    python openai_client.py http://127.0.0.1:8080/v1

Ends with 0 if all is as it should be. No answer may depend on who else asks at the time: 24 requests are
asked alone, then shuffled by 32 clients at once, and must be the same to the bit of every log-probability.
"""

import concurrent.futures
import json
import random
import sys

import openai

CLIENTS = 32


def requests():
    """24 requests of many kinds, each with a seed of its own."""
    questions = [
        "What is the capital of France?",
        "Write a haiku about rain.",
        "List three colours.",
        "Why is the sky blue? " * 12,
    ]
    kinds = [
        {"temperature": 0},
        {"temperature": 1},
        {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 0.5},
        {"temperature": 1.2, "frequency_penalty": 0.4, "n": 2},
        {"temperature": 0.8, "stop": [".", "\n"]},
        {"temperature": 0.9, "extra_body": {"top_k": 20, "min_p": 0.02, "repetition_penalty": 1.2}},
    ]
    for seed, (question, kind) in enumerate((q, k) for q in questions for k in kinds):
        yield {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 16 + seed,
            "seed": seed,
            "logprobs": True,
            "top_logprobs": 3,
            **kind,
        }


def whole(client, model, request):
    answer = client.chat.completions.create(model=model, **request)
    return [choice.model_dump() for choice in answer.choices]


def streamed(client, model, request):
    """The same, put together from its events; the number of events of each answer."""
    told = {}
    usage = None
    options = {"include_usage": True}
    for event in client.chat.completions.create(
        model=model, stream=True, stream_options=options, **request
    ):
        usage = event.usage or usage
        for choice in event.choices:
            answer = told.setdefault(choice.index, {"text": "", "tokens": [], "finish": None, "roles": []})
            answer["text"] += choice.delta.content or ""
            answer["tokens"] += [entry.model_dump() for entry in (choice.logprobs.content if choice.logprobs else [])]
            answer["finish"] = choice.finish_reason or answer["finish"]
            answer["roles"] += [choice.delta.role] if choice.delta.role else []
    assert usage is not None and usage.completion_tokens == sum(len(a["tokens"]) for a in told.values()), usage
    return [told[index] for index in sorted(told)]


def same(alone, found):
    return json.dumps(alone, sort_keys=True) == json.dumps(found, sort_keys=True)


def check_crowd(client, model):
    asked = list(requests())
    alone = [whole(client, model, request) for request in asked]
    for request, expected in zip(asked, alone):
        for choice, told in zip(expected, streamed(client, model, request), strict=True):
            assert told["text"] == choice["message"]["content"], (told, choice)
            assert told["tokens"] == choice["logprobs"]["content"], (told, choice)
            assert told["finish"] == choice["finish_reason"] and told["roles"] == ["assistant"]
    order = list(range(len(asked))) * 2
    random.Random(7).shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        found = pool.map(lambda index: whole(client, model, asked[index]), order)
        wrong = [index for index, one in zip(order, found) if not same(alone[index], one)]
    assert not wrong, f"other answers in a crowd: {wrong}"
    return len(asked), len(order)


def check_errors(client, model):
    message = [{"role": "user", "content": "a"}]

    def fails(kind, **request):
        try:
            client.chat.completions.create(**{"model": model, "messages": message, **request})
        except kind as error:
            return error
        raise AssertionError(f"{request} was answered")

    error = fails(openai.BadRequestError, temperature=9, top_p=2)
    assert error.param == "temperature" and "top_p" in str(error), error
    error = fails(openai.BadRequestError, max_tokens=10_000_000)
    assert error.code == "context_length_exceeded", error
    assert fails(openai.NotFoundError, model="another").code == "model_not_found"
    fails(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f"}}])


def check_completions(client, model):
    prompts = ["Once upon a time", [504, 2]]
    answer = client.completions.create(model=model, prompt=prompts, max_tokens=5, n=2, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens <= 20
    answer = client.completions.create(
        model=model, prompt="Paris is the capital of France", max_tokens=1, echo=True, logprobs=2
    )
    lists = answer.choices[0].logprobs
    assert lists.token_logprobs[0] is None and all(x <= 0 for x in lists.token_logprobs[1:])
    assert answer.choices[0].text.startswith("Paris is the capital of France")
    assert len(lists.tokens) == len(lists.text_offset) == len(lists.top_logprobs)


def check_structured(client, model):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "size": {"enum": ["small", "large"]},
            "founded": {"type": "integer", "minimum": 0, "maximum": 2100},
        },
        "required": ["city", "size", "founded"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}}
    messages = [{"role": "user", "content": "Tell me of a city."}]
    for seed in range(8):
        answer = client.chat.completions.create(
            model=model, messages=messages, response_format=form, seed=seed, max_tokens=100
        )
        assert answer.choices[0].finish_reason == "stop", answer
        city = json.loads(answer.choices[0].message.content)
        assert list(city) == ["city", "size", "founded"] and len(city["city"]) <= 12, city
        assert city["size"] in ["small", "large"] and 0 <= city["founded"] <= 2100, city
    answer = client.chat.completions.create(
        model=model, messages=messages, extra_body={"structured_outputs": {"regex": "[A-Z][a-z]{3,8}"}}
    )
    text = answer.choices[0].message.content
    assert text.isalpha() and text.istitle() and 4 <= len(text) <= 9, text
    broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "banana"}}}
    try:
        client.chat.completions.create(model=model, messages=messages, response_format=broken)
    except openai.BadRequestError as error:
        assert error.param == "response_format.json_schema.schema", error
    else:
        raise AssertionError("a schema of bananas was followed")


def main():
    client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=600)
    models = client.models.list().data
    model = models[0].id
    assert models[0].owned_by == "redline"
    check_errors(client, model)
    check_structured(client, model)
    check_completions(client, model)
    alone, crowd = check_crowd(client, model)
    print(f"openai {openai.__version__}: {alone} requests alone and streamed, {crowd} by {CLIENTS} clients: the same")


if __name__ == "__main__":
    main()
