"""Code to copy that talks to a server: curl, openai, LangChain."""

from __future__ import annotations

from toolkit.server.address import Address

__all__ = ["snippets"]

_HELLO = '[{"role": "user", "content": "Hello!"}]'


def snippets(address: Address, model: str) -> dict[str, str]:
    """Return commands and programs by the name of their client; a key is read from a variable.

    >>> print(snippets(Address(host="127.0.0.1", port=8000), "toolkit-demo")["openai"])
    from openai import OpenAI
    <BLANKLINE>
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="EMPTY")
    answer = client.chat.completions.create(
        model="toolkit-demo", messages=[{"role": "user", "content": "Hello!"}]
    )
    print(answer.choices[0].message.content)
    """
    key = 'os.environ["TOOLKIT_API_KEY"]' if address.api_key is not None else '"EMPTY"'
    imports = ["import os", ""] if address.api_key is not None else []
    options = f'base_url="{address.base_url}", api_key={key}'
    transport = _transport(address)
    if transport is not None:
        imports += ["import httpx"]
        options += f", http_client=httpx.Client({transport})"
    return {
        "curl": address.curl(model),
        "openai": "\n".join(
            [
                *imports,
                "from openai import OpenAI",
                "",
                f"client = OpenAI({options})",
                "answer = client.chat.completions.create(",
                f'    model="{model}", messages={_HELLO}',
                ")",
                "print(answer.choices[0].message.content)",
            ]
        ),
        "LangChain": "\n".join(
            [
                *imports,
                "from langchain_openai import ChatOpenAI",
                "",
                f'chat = ChatOpenAI(model="{model}", {options})',
                'print(chat.invoke("Hello!").content)',
            ]
        ),
    }


def _transport(address: Address) -> str | None:
    """Return what httpx needs to know where the address is no plain one."""
    if address.uds is not None:
        return f"transport=httpx.HTTPTransport(uds={address.uds!r})"
    if address.certfile is not None:
        return f"verify={address.certfile!r}"
    return None
