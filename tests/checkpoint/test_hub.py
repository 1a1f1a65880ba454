"""Models from the hub, against a local stand-in: found, pinned, cached, and every way of not being there."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import COMMIT, serve, use

from sam2_jax import RELEASED_MODELS, Sam2Config, Sam2Model, Sam2Processor
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.hub import EMBEDDED_MODEL, HubFolder

TINY = "facebook/sam2.1-hiera-tiny"


@pytest.fixture(scope="module")
def repository(small_model: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as the hub has it: transformers' layout, with a processor's configuration."""
    folder = tmp_path_factory.mktemp("repository")
    small_model.save_pretrained(folder, layout="transformers")
    (folder / "processor_config.json").write_text(
        '{"image_processor": {"size": {"height": 128, "width": 128}}}'
    )
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(repository: Path) -> Iterator[list[str]]:
    """The stand-in, holding one model; gives the list of requests it got."""
    with serve({TINY: repository}) as (endpoint, requests), use(endpoint):
        yield requests


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An endpoint that refuses every connection, without the pauses between tries."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with use("http://127.0.0.1:9"):
        yield


def assert_same(model: Sam2Model, other: Sam2Model) -> None:
    left, right = names.flatten(model.params), names.flatten(other.params)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def test_a_model_and_its_processor_come_from_the_hub(
    hub: list[str], cache: Path, small_model: Sam2Model
) -> None:
    model = Sam2Model.from_pretrained(TINY, cache_dir=cache)
    assert model.config == small_model.config
    assert_same(model, small_model)
    assert Sam2Processor.from_pretrained(TINY, cache_dir=cache).target_size == 128


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_is_pinned(hub: list[str], cache: Path, revision: str) -> None:
    Sam2Model.from_pretrained(TINY, cache_dir=cache, revision=revision)
    assert hub
    assert all(f"/resolve/{revision}/" in request for request in hub)


def test_what_was_fetched_is_read_again_without_network(
    hub: list[str], cache: Path, small_model: Sam2Model
) -> None:
    Sam2Model.from_pretrained(TINY, cache_dir=cache)
    hub.clear()
    assert_same(Sam2Model.from_pretrained(TINY, cache_dir=cache, local_files_only=True), small_model)
    assert not hub


def test_what_was_fetched_is_read_again_when_the_hub_is_down(
    repository: Path, cache: Path, small_model: Sam2Model
) -> None:
    with serve({TINY: repository}) as (endpoint, _), use(endpoint):
        Sam2Model.from_pretrained(TINY, cache_dir=cache)
        Sam2Processor.from_pretrained(TINY, cache_dir=cache)
    with use("http://127.0.0.1:9"):
        assert_same(Sam2Model.from_pretrained(TINY, cache_dir=cache), small_model)
        assert Sam2Processor.from_pretrained(TINY, cache_dir=cache).target_size == 128


def test_a_sharded_model_comes_whole(cache: Path, small_model: Sam2Model, tmp_path: Path) -> None:
    from test_files import shard

    folder = tmp_path / "sharded"
    small_model.save_pretrained(folder, layout="transformers")
    shard(folder)
    with serve({TINY: folder}) as (endpoint, _), use(endpoint):
        assert_same(Sam2Model.from_pretrained(TINY, cache_dir=cache), small_model)
        # Without model.safetensors and a processor's configuration, which the cache knows to be absent.
        assert Sam2Processor.from_pretrained(TINY, cache_dir=cache).target_size == 128
        offline = {"cache_dir": cache, "local_files_only": True}
        assert_same(Sam2Model.from_pretrained(TINY, **offline), small_model)
        assert Sam2Processor.from_pretrained(TINY, **offline).target_size == 128


def test_an_unknown_model_lists_the_known_ones(hub: list[str], cache: Path) -> None:
    with pytest.raises(ValueError, match=rf"no model 'facebook/sam2.1-hiera-tinny'.*mean {TINY}") as error:
        Sam2Model.from_pretrained("facebook/sam2.1-hiera-tinny", cache_dir=cache)
    assert all(name in str(error.value) for name in RELEASED_MODELS)


@pytest.mark.parametrize("name", ["tiny", "sam2.1-hiera-tiny", "./nowhere", "a/b/c", ""])
def test_what_is_neither_a_folder_nor_an_id_lists_the_known_models(name: str) -> None:
    with pytest.raises(ValueError, match="neither an existing folder or file nor a hub id") as error:
        HubFolder(name)
    assert all(known in str(error.value) for known in RELEASED_MODELS)


def test_an_unknown_revision_is_named(hub: list[str], cache: Path) -> None:
    with pytest.raises(ValueError, match="has no revision 'v7'"):
        Sam2Model.from_pretrained(TINY, cache_dir=cache, revision="v7")


def test_an_unreachable_hub_says_so_and_how_to_do_without(no_hub: None, cache: Path) -> None:
    with pytest.raises(ValueError, match="cannot reach the model hub for config.json") as error:
        Sam2Model.from_pretrained(TINY, cache_dir=cache)
    assert "give its folder in place of the id" in str(error.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_hub_that_fails_is_asked_once_and_quoted(
    repository: Path, cache: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected = pytest.raises(ValueError, match=f"the model hub answered {status} when.*try again later")
    with serve({TINY: repository}, {"": status}) as (endpoint, requests), use(endpoint), expected:
        Sam2Model.from_pretrained(TINY, cache_dir=cache)
    assert len(requests) == 1
    assert not caplog.records


def test_a_hub_that_fails_in_the_middle_is_quoted_too(repository: Path, cache: Path) -> None:
    expected = pytest.raises(ValueError, match="answered 503 when asked for model.safetensors")
    failing = {"model.safetensors": 503}
    with serve({TINY: repository}, failing) as (endpoint, requests), use(endpoint), expected:
        Sam2Model.from_pretrained(TINY, cache_dir=cache)
    assert sum("model.safetensors" in request for request in requests) == 1


def test_what_is_cached_is_read_while_the_hub_fails(
    repository: Path, cache: Path, small_model: Sam2Model
) -> None:
    with serve({TINY: repository}) as (endpoint, _), use(endpoint):
        Sam2Model.from_pretrained(TINY, cache_dir=cache)
    with serve({TINY: repository}, {"": 500}) as (endpoint, _), use(endpoint):
        assert_same(Sam2Model.from_pretrained(TINY, cache_dir=cache), small_model)
        with pytest.raises(ValueError, match="answered 500"):  # which asks for it anew
            Sam2Model.from_pretrained(TINY, cache_dir=cache, force_download=True)


def test_a_cached_model_costs_one_request_a_file(hub: list[str], cache: Path) -> None:
    Sam2Model.from_pretrained(TINY, cache_dir=cache)
    hub.clear()
    Sam2Model.from_pretrained(TINY, cache_dir=cache)
    assert [request.split("/")[-1] for request in hub] == ["config.json", "model.safetensors"]
    Sam2Model.from_pretrained(TINY, cache_dir=cache, force_download=True)
    assert sum(request.startswith("GET") for request in hub) == 2


def test_a_subfolder_and_a_token_reach_the_hub(repository: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "all" / "inner")
    tokens: list[str] = []
    with serve({TINY: tmp_path / "all"}, tokens=tokens) as (endpoint, requests), use(endpoint):
        options = {"cache_dir": cache, "subfolder": "inner", "token": "hf_secret"}
        model = Sam2Model.from_pretrained(TINY, **options)
        assert Sam2Processor.from_pretrained(TINY, **options).target_size == 128
        assert Sam2Config.from_pretrained(TINY, **options) == model.config
        offline = Sam2Model.from_pretrained(TINY, **options, local_files_only=True)
    assert_same(model, offline)
    assert all("/inner/" in request for request in requests)
    assert set(tokens) == {"Bearer hf_secret"}
    assert Sam2Model.from_pretrained(tmp_path / "all", subfolder="inner").config == model.config


def test_paths_that_the_system_refuses_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("n" * 300, "a/" + "n" * 300, tmp_path / "loop", tmp_path / ("n" * 300), "a\0b"):
        with pytest.raises(ValueError, match="model ") as error:
            HubFolder(path)
        assert len(str(error.value)) < 600
    for wrong in (None, 3, b"x", ["x"]):
        with pytest.raises(ValueError, match="model must be a hub id, a folder or a file"):
            HubFolder(wrong)  # type: ignore[arg-type]


def test_offline_without_a_cache_says_so(cache: Path) -> None:
    with pytest.raises(ValueError, match="the local cache does not have it"):
        Sam2Model.from_pretrained(TINY, cache_dir=cache, local_files_only=True)


def test_a_repository_without_weights_says_what_was_expected(
    cache: Path, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "no_weights"
    folder.mkdir()
    shutil.copy(repository / "config.json", folder)
    expected = pytest.raises(ValueError, match="holds no weights: expected model.safetensors or flax_model")
    with serve({TINY: folder}) as (endpoint, _), use(endpoint), expected:
        Sam2Model.from_pretrained(TINY, cache_dir=cache)


def test_a_folder_has_no_revisions(repository: Path) -> None:
    with pytest.raises(ValueError, match="revision 'v1' is for hub models"):
        Sam2Model.from_pretrained(repository, revision="v1")


def test_the_model_in_the_package_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()  # a folder of that name is ./embedded
    assert HubFolder("embedded").get("config.json") == EMBEDDED_MODEL / "config.json"
    assert HubFolder("./embedded").find("config.json") is None
    assert Sam2Model.from_pretrained("embedded").processor.target_size == 384
    with pytest.raises(ValueError, match="did you mean embedded"):
        HubFolder("embeded")
