"""What our patches touch in ESPnet2 for its vocoders."""

PWG_MODULE = "espnet2.tts.utils.parallel_wavegan_pretrained_vocoder"
TASKS = {
    "espnet2.tasks.tts": "TTSTask",
    "espnet2.tasks.tts2": "TTS2Task",
    "espnet2.tasks.svs": "SVSTask",
    "espnet2.tasks.s2st": "S2STTask",
}
INFERENCE = {
    "espnet2.bin.tts_inference": "Text2Speech",
    "espnet2.bin.svs_inference": "SingingGenerate",
    "espnet2.bin.s2st_inference": "Speech2Speech",
}
