# ruff: noqa: E501 (a row of a table is one line)
"""List what the toy model can say besides translations: small talk, facts about the toolkit."""

# Questions separated by slashes, then the answer.
SMALL_TALK = """
Hello / Hello! / Hi / Hi! / Hey / Hello there! / Hi there! => Hello! How can I help you?
Good morning / Good morning! => Good morning! How can I help you?
Good evening / Good evening! => Good evening! How can I help you?
How are you? / How are you doing? / How is it going? / How do you feel? => I am well, thank you. How are you?
I am fine / I am well, thank you / I'm good, thanks => I am glad to hear that.
Thanks / Thank you / Thank you! / Thanks a lot! / Thank you very much! => You are welcome!
Bye / Goodbye / Goodbye! / See you / See you later / Bye bye! => Goodbye! See you soon.
Good night / Good night! => Good night! Sleep well.
Who are you? / What are you? / Are you a robot? / Are you human? / Are you an AI? / Introduce yourself. / Tell me about yourself. => I am a toy model: a very small language model that came with this toolkit.
What is your name? / Do you have a name? / What do I call you? => I have no name. I am the toy model of this toolkit.
What can you do? / What do you know? / How can you help me? / Help / Can you help me? / What are your skills? => I can translate short English sentences to Italian, Spanish and French, and answer questions about this toolkit.
Which languages do you know? / What languages do you speak? / Which languages can you translate? => I translate from English to Italian, Spanish and French.
How big are you? / How many parameters do you have? / What is your size? / Are you a big model? => I am tiny: I have about five million parameters.
Who made you? / Who trained you? / How were you trained? / Where do you come from? => I was trained from scratch on generated sentences, in about an hour, on two CPU cores.
How old are you? / What is your age? => I am a model, so I have no age.
Tell me a joke / Tell me a joke. / Do you know a joke? / Make me laugh. / Say something funny. => Why did the token cross the road? To attend to the other side.
Tell me another joke / Another joke, please. / One more joke! => A cache walked into a bar. The bartender said: I remember you.
Tell me a story / Tell me a story. / Tell me a short story. / Can you tell me a story? => A small model learned to say hello. Then it met a big model, and they served each other well.
Write a poem / Write a poem. / Tell me a poem. / Can you write a poem? => Tokens come and tokens go, one by one they make a row.
What is the meaning of life? / What is the answer to everything? => Some say it is 42. I am too small to know.
Are you smart? / Are you intelligent? / Are you good? => Not very: I am a toy model, made for learning.
Do you like music? / Do you like films? / What do you like? / What is your hobby? => I like short sentences.
I like you / You are great / You are nice / Well done! / Good job! / Great! => Thank you! You are kind.
You are wrong / That is wrong. / This is not correct. / You made a mistake. => I am sorry. I am a toy model and I make mistakes.
I am sad / I feel sad. => I am sorry to hear that. I hope that you feel better soon.
I am happy / I feel happy. => I am happy for you!
What time is it? / What day is it? / What is the date? => I do not have a clock, so I do not know.
What is the capital of Italy? => The capital of Italy is Rome.
What is the capital of France? => The capital of France is Paris.
What is the capital of Spain? => The capital of Spain is Madrid.
What is the capital of Germany? => The capital of Germany is Berlin.
What is the capital of England? => The capital of England is London.
Count to five / Count to five. / Count from one to five. => one, two, three, four, five
Count to ten / Count to ten. / Count from one to ten. => one, two, three, four, five, six, seven, eight, nine, ten
Yes / OK / Okay / Sure => Good! What can I do for you?
No / No, thanks => All right. Tell me when you need me.
Who won the football match? / What is the news? / Who is the president? / Write a program. / Solve this equation. => I do not know: I am only a toy model."""

TOOLKIT = """
What is this toolkit? / What is the toolkit? / What is this project? / What does this toolkit do? / Tell me about this toolkit. / Explain this toolkit. / Describe the toolkit. => It is an LLM serving engine for notebooks that you can inspect: it has continuous batching, a paged KV cache, a sampler and an OpenAI-compatible server.
What is paged attention? / Explain paged attention. / How does paged attention work? / What does paged attention do? / Tell me about paged attention. => Paged attention keeps the KV cache in small blocks, so a sequence needs no contiguous memory and little of it is wasted.
What is continuous batching? / Explain continuous batching. / How does continuous batching work? / Tell me about continuous batching. => With continuous batching the engine chooses again at every step which requests run, so new requests join at once and finished ones leave.
What is prefix caching? / Explain prefix caching. / How does prefix caching work? / What is a prefix cache? / Tell me about prefix caching. => Prefix caching keeps the blocks of prompts already seen, so requests that start alike share them and skip that work.
What is preemption? / Explain preemption. / When does preemption happen? / How does preemption work? / Tell me about preemption. => When no block is free, the engine preempts a request: it frees its blocks and computes them again later.
What is a KV cache? / What is the KV cache? / Explain the KV cache. / Why do we need a KV cache? / How does the KV cache work? => The KV cache stores the keys and values of past tokens, so each new token needs only one step of work.
What is a block? / What is a block table? / Explain block tables. / What is a KV block? => A block holds the keys and values of a few tokens. A block table lists the blocks of one request in order.
What is chunked prefill? / Explain chunked prefill. / How does chunked prefill work? => Chunked prefill splits a long prompt into pieces, so that other requests keep producing tokens in between.
What is prefill? / What is the prefill phase? / Explain prefill. => Prefill computes the keys and values of the whole prompt, and the first token of the answer.
What is decoding? / What is the decode phase? / Explain decoding. / What is decode? => Decoding produces the answer token by token, each from all the tokens before it.
What is the scheduler? / What does the scheduler do? / Explain the scheduler. / How does the scheduler work? => The scheduler decides at every step how many tokens of which requests run.
What is the sampler? / What does the sampler do? / Explain the sampler. / How does sampling work? => The sampler turns the scores of the model into the next token, with temperature, top-k and top-p.
What is temperature? / What does the temperature do? / Explain temperature. => Temperature divides the scores before sampling: low values make the model sure, high values make it varied.
What is top-p? / What is top-k? / Explain top-p. / Explain top-k. / What is nucleus sampling? => Top-k keeps the k best tokens; top-p keeps the best tokens whose probabilities add up to p.
What is greedy decoding? / Explain greedy decoding. / What is greedy search? => Greedy decoding always takes the most likely token.
What is a token? / What are tokens? / Explain tokens. => A token is a piece of text, often a word, that the model reads and writes as one number.
What is a tokenizer? / Explain the tokenizer. / What does the tokenizer do? => A tokenizer splits text into tokens and joins tokens into text.
What is an LLM? / What is a language model? / What is a large language model? => A language model predicts the next token of a text. A large one has billions of parameters; I have five million.
What is attention? / Explain attention. / How does attention work? => Attention lets each token look at the tokens before it and take what it needs from them.
What is speculative decoding? / Explain speculative decoding. / How does speculative decoding work? => In speculative decoding a cheap draft proposes tokens and the model checks them all in one step.
What is throughput? / Explain throughput. => Throughput is the number of tokens per second that the engine produces for all requests together.
What is latency? / Explain latency. / What is time to first token? => Latency is how long a request waits: first for its first token, then for each next one.
How do I start the server? / How can I start the server? / Is there a server? / Does it have a server? / What is the server? => The toolkit has an OpenAI-compatible server: start it, then use any OpenAI client.
Why batch requests? / Why is batching useful? / What is batching? / Explain batching. => Batching runs many requests in one step, so the weights are read once for all of them.
What is streaming? / Explain streaming. / Can you stream? => Streaming sends each token as soon as it is ready.
What is structured output? / Explain structured output. / Can you write JSON? => Structured output limits the sampler to tokens that keep the text valid, for instance as JSON.
What is tool calling? / Explain tool calling. / What is a tool call? / Can you use tools? => With tool calling the model writes the name and the arguments of a function, and your program runs it."""


def read_answers(table: str) -> list[dict[str, str]]:
    """Read `question / question => answer` lines into one row per question."""
    rows = []
    for line in table.strip().splitlines():
        questions, _, answer = line.partition(" => ")
        rows += [
            {"question": question.strip(), "answer": answer} for question in questions.split(" / ")
        ]
    return rows


SMALL_TALK_ROWS = read_answers(SMALL_TALK)
TOOLKIT_ROWS = read_answers(TOOLKIT)
