"""Draws with a running `evocache-worker serve` through the official `openai` client, and checks what it answers.

    pip install openai
    evocache-worker serve --model worker/models/emoji &
    python deploy/examples/openai_images.py --url http://127.0.0.1:8188 --prompt "an owl on a pink background" --out owl.png
"""

import argparse
import base64
import pathlib
import urllib.request

import openai


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="address of the server")
    parser.add_argument("--token", default="none", help="token, if the server asks for one")
    parser.add_argument("--prompt", default="an owl on a pink background")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("picture.png"))
    arguments = parser.parse_args()

    client = openai.OpenAI(base_url=f"{arguments.url}/v1", api_key=arguments.token)
    model = client.models.list().data[0].id

    # What OpenAI's API has no name for goes into extra_body, and headers are in the raw response.
    raw = client.images.with_raw_response.generate(
        model=model,
        prompt=arguments.prompt,
        response_format="b64_json",
        user="example",
        extra_body={"seed": arguments.seed},
        extra_headers={"x-deadline": "120"},
    )
    picture = base64.b64decode(raw.parse().data[0].b64_json)
    arguments.out.write_bytes(picture)
    print(f"{arguments.out}: {len(picture)} bytes, model {model}")
    for name in ("schedule", "speedup", "quality", "why"):
        print(f"  {name}: {raw.headers.get(f'x-evocache-{name}', '-')}")

    # The same picture by its address, among others.
    links = client.images.generate(
        model=model, prompt=arguments.prompt, n=2, response_format="url", extra_body={"seed": arguments.seed}
    )
    files = [urllib.request.urlopen(link.url).read() for link in links.data]
    assert len(files) == 2 and files[0] != files[1] and all(file[:4] == b"\x89PNG" for file in files)

    # Refusals arrive as the client's own errors, with the field that is wrong.
    try:
        client.images.generate(model=model, prompt=arguments.prompt, extra_body={"sed": 1})
    except openai.BadRequestError as error:
        assert (error.code, error.param) == ("unknown_field", "sed"), error
        print(f"  refused: {error.message}")
    else:
        raise SystemExit("a misspelled field was not refused")
    try:
        client.with_options(max_retries=0).images.generate(
            model=model,
            prompt=arguments.prompt,
            extra_body={"num_inference_steps": 900},
            extra_headers={"x-deadline": "0.01"},
        )
    except openai.InternalServerError as error:
        assert error.status_code == 503 and int(error.response.headers["retry-after"]) >= 1, error
        print(f"  refused: {error.message}")
    else:
        raise SystemExit("a deadline of 10 ms was promised for 900 steps")
    try:
        client.images.generate(model="other", prompt=arguments.prompt)
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    else:
        raise SystemExit("an unknown model was not refused")


if __name__ == "__main__":
    main()
