"""A checkpoint of each family that people know by name, to be given as ``--model``.

Names on the Hugging Face hub, listed for orientation: none of them is in the package, and only tiny models of each
family are run by ``lvlm-lens models --check``.
"""

from __future__ import annotations

KNOWN_BY = {
    "llama": "meta-llama/Llama-2-7b-chat-hf",
    "qwen2": "Qwen/Qwen2.5-7B-Instruct",
    "qwen3": "Qwen/Qwen3-8B",
    "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
    "gemma3_text": "google/gemma-3-1b-it",
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava_next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava_onevision": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "vipllava": "llava-hf/vip-llava-7b-hf",
    "internvl": "OpenGVLab/InternVL3-8B-hf",
    "mistral3": "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    "aya_vision": "CohereLabs/aya-vision-8b",
    "janus": "deepseek-community/Janus-Pro-7B",
    "qwen2_vl": "Qwen/Qwen2-VL-7B-Instruct",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3_vl": "Qwen/Qwen3-VL-8B-Instruct",
    "glm4v": "zai-org/GLM-4.1V-9B-Thinking",
    "idefics2": "HuggingFaceM4/idefics2-8b",
    "idefics3": "HuggingFaceM4/Idefics3-8B-Llama3",
    "smolvlm": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "paligemma": "google/paligemma2-3b-mix-224",
    "gemma3": "google/gemma-3-4b-it",
    "gemma4": "google/gemma-4-E2B-it",
    "mllama": "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "chameleon": "facebook/chameleon-7b",
    "lfm2_vl": "LiquidAI/LFM2-VL-1.6B",
    "llama4": "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "molmo2": "allenai/Molmo2-8B",
    "blip-2": "Salesforce/blip2-opt-2.7b",
    "instructblip": "Salesforce/instructblip-vicuna-7b",
}
"""Checkpoint on the hub by family."""
