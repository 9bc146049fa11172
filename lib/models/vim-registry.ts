/**
 * The official Vim models by name (hustvl/Vim, vim/models_mamba.py: the arguments that each registered
 * constructor passes), and our short names for the published ones.
 */

const COMMON = {
  patch_size: 16, stride: 16, depth: 24, d_state: 16, rms_norm: true, if_abs_pos_embed: true,
  if_rope: false, if_rope_residual: false, if_cls_token: true, use_middle_cls_token: true, use_double_cls_token: false,
  if_divide_out: true,
} as const;

const ROPE = { ...COMMON, embed_dim: 192, if_rope: true, if_rope_residual: true };

const TINY = 'vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2';
const SMALL = 'vim_small_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2';
const BASE = 'vim_base_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_middle_cls_token_div2';

/** Constructor arguments by registry name. Class count and picture size follow the weights. */
export const VIM_REGISTRY: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  [TINY]: { ...COMMON, embed_dim: 192 },
  vim_tiny_patch16_stride8_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2: { ...COMMON, embed_dim: 192, stride: 8 },
  [SMALL]: { ...COMMON, embed_dim: 384 },
  vim_small_patch16_stride8_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2: { ...COMMON, embed_dim: 384, stride: 8 },
  [BASE]: { ...COMMON, embed_dim: 768 },
  vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_rope_also_residual: {
    ...ROPE, if_cls_token: false, use_middle_cls_token: false, if_divide_out: false,
  },
  vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_rope_also_residual_with_cls_token: ROPE,
};

export const VIM_SHORT_NAMES: Readonly<Record<string, string>> = { 'vim-tiny': TINY, 'vim-small': SMALL, 'vim-base': BASE };
