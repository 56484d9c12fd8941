"""What loads models and datasets by name, unchanged, from a node that holds nothing."""

from __future__ import annotations


def test_transformers_loads_by_every_kind_of_revision(client, shelf):
    told = client(f"""
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
        name = f"{{NS}}/parrot"
        tokens = AutoTokenizer.from_pretrained(name)("hello", return_tensors="pt")
        shapes = [
            list(AutoModel.from_pretrained(name, revision=revision)(**tokens).last_hidden_state.shape)
            for revision in ("main", "old", "1.0.0", "{shelf.commits['parrot']}")
        ]
        config = AutoConfig.from_pretrained(name)
        text = pipeline(model=name)("hi", max_new_tokens=2)[0]["generated_text"]
        loaded = type(AutoModelForCausalLM.from_pretrained(name)).__name__
        tell([shapes, config.model_type, text[:2], loaded])
    """)

    assert told == [[[1, 5, 256]] * 4, "llama", "hi", "LlamaForCausalLM"]


def test_sentence_transformers_encodes(client):
    told = client("""
        from sentence_transformers import SentenceTransformer
        model = SentenceTransformer(f"{NS}/sentences")
        tell(list(model.encode(["hello world", "world"]).shape))
    """)

    assert told == [2, 32]


def test_mteb_finds_a_model(client):
    told = client("""
        import mteb
        model = mteb.get_model(f"{NS}/sentences")
        tell([model.mteb_model_meta.name, model.mteb_model_meta.embed_dim])
    """)

    assert told[0].endswith("/sentences")


def test_datasets_load_whole_and_as_a_stream(client):
    told = client("""
        from datasets import load_dataset
        tell({
            name: [
                load_dataset(f"{NS}/{name}", split="train").num_rows,
                next(iter(load_dataset(f"{NS}/{name}", split="train", streaming=True))),
            ]
            for name in ("table", "lines", "records")
        })
    """)

    assert told == {
        "table": [1000, {"text": "row 0", "label": 0}],
        "lines": [100, {"text": "bon", "label": 1}],
        "records": [100, {"text": "bon", "label": 1}],
    }
