"""The keys that config.json files of drafters have, by what they mean for the computation."""

QUANTISATION_MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
"""Values of a quantisation's mode."""

UNDERSTOOD = frozenset(
    """
    architectures attention_bias attention_k_eq_v attention_mode attention_sink_bias attention_value_scale
    aux_hidden_state_layer_ids block_size causal causal_head confidence_head_with_markov confidence_temperatures
    conv_group_size conv_kernel_size dflare_config dflash_config dflash_query_causal draft_vocab_size
    draft_window_size dspark_bonus_anchor dspark_fixup_head_type dspark_markov_rank eagle_aux_hidden_state_layer_ids
    embed_scale emb_dim enable_confidence_head enable_moe_block enable_qwen35_gated_q_proj final_logit_softcapping
    gating global_head_dim gru_hidden_dim head_dim hidden_act hidden_activation hidden_size
    hidden_size_per_layer_input input_embedding_scale interleaved intermediate_size is_causal is_neox_style layer_types
    log_snr_conditioning logit_scale markov_head_type markov_rank mask_token_id max_log_snr
    max_position_embeddings max_window_layers min_log_snr model_type num_attention_heads num_experts
    num_global_key_value_heads num_hidden_layers num_key_value_heads num_kv_shared_layers num_target_layers
    output_multiplier projector_type pure_draft_prefix_len quantization quantization_config rms_norm_eps
    rope_is_neox_style rope_parameters rope_scaling rope_theta runtime_block_size sample_from_anchor selector_rank
    selector_top_k selector_vocab_size shift_label sliding_window sliding_window_non_causal sliding_window_pattern
    sliding_windows speculators_config swa_window_size target_hidden_size target_layer_ids target_num_hidden_layers
    tie_word_embeddings transformer_layer_config use_aux_hidden_state use_double_wide_mlp use_sliding_window use_swa
    vocab_size
    """.split()
)
"""Keys that say what is computed, or whose values are checked."""
HARMLESS = frozenset(
    """
    _attn_implementation _name_or_path attention_dropout attn_implementation auto_map base_model bos_token_id
    chunk_size_feed_forward confidence_head_alpha dtype eos_token_id has_embed_tokens has_lm_head id2label
    initializer_range is_encoder_decoder label2id license loss_gamma mlp_bias name_or_path num_anchors num_aux_layers
    output_attentions output_hidden_states pad_token_id pard_token pretraining_tp problem_type return_dict
    speculators_model_type speculators_version target_model target_model_name_or_path target_model_type
    target_text_model_type torch_dtype train_embed_tokens transformers_version use_cache
    """.split()
)
"""Keys that cannot change what is computed, or that say what the tensors say themselves."""
COPIED = frozenset(
    """
    attn_output_gate decoder_sparse_step full_attention_interval image_token_id language_model_only
    linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads linear_value_head_dim
    mamba_ssm_dtype mlp_only_layers moe_intermediate_size mrope_interleaved mrope_section mtp_num_hidden_layers
    mtp_use_dedicated_embeddings norm_topk_prob num_experts_per_tok output_gate_type output_router_logits
    partial_rotary_factor router_aux_loss_coef shared_expert_intermediate_size text_config video_token_id
    vision_config vision_end_token_id vision_start_token_id
    """.split()
)
"""Keys of targets that trainers copy into a drafter's file.  The public code of drafters with Qwen3's layers reads none
of them (partial_rotary_factor: only where the layers are Qwen3.5's own), and neither does this reader: where a quarter
of each head is turned because the target's heads are turned so, half as many drafts are accepted."""
NESTED = ("dflash_config", "dflare_config", "transformer_layer_config")
"""Objects inside which keys are looked up, behind the top level."""
