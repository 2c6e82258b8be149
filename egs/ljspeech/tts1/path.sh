# eSpeak NG comes inside the wheel of espeakng-loader; ESPnet's phonemizer finds it by these variables.
_espeak=$("${python:-python3}" -c 'import espeakng_loader as e; print(e.get_library_path(), e.get_data_path())')
export PHONEMIZER_ESPEAK_LIBRARY=${PHONEMIZER_ESPEAK_LIBRARY:-${_espeak% *}} ESPEAK_DATA_PATH=${ESPEAK_DATA_PATH:-${_espeak#* }}
