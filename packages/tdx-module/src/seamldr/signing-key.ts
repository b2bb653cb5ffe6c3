/**
 * The RSA-3072 key that signs module images here. It is no secret and protects nothing but the check itself: a real
 * platform trusts Intel's key, whose private half is Intel's; this one's stands here so that anyone can build an image.
 */
const number = (...hex: string[]): bigint => BigInt("0x" + hex.join(""));

/** The primes. */
// prettier-ignore
const P = number(
  "d68ecd1b53780642e81e2665d28328e92e83283224a49b632ad30542a42ecc4fe344071b233e8145bd81d3c32d6bf8e8",
  "807dfecd1918dd67090a6b69455950cc174ded486db3ec35123eb464014b817016929d36d3d33a8bfc516f31fcc2e6e3",
  "dff407c9af820fdaffeb7ad16a94d9fca5ea15eccf98f096955cd199dc0f28e47d6714ea21fc200da4d719ab0fccff3e",
  "b6b2926de3333141370d4b84a65fc5014ae2e73fb13652f0e6c6fa077e4e892d298a93841a5e92056f585c935f79f6bf",
);
// prettier-ignore
const Q = number(
  "d307232810483c832cd6555d078b67c33ae706dc585391f8298ed8cb25ab06b289385e1a79a38f118542bf37106b09e7",
  "b13d97aa11c0e7febc7b9e7af03c6a0e4b2a5f4a50a6775efc18ed40a99bcf1779f28647f51921252fcc2a58c219d555",
  "47b1f0872fea2690a25419392fb441bd4b9a9391164219ee98320a675db623cd6de540bdaba8f8100553356e631d3fa2",
  "50c24497c0079c7037c49472f8926c318628ce98c97d018cd7f58365b6fc6025491dd10e658dfd70c7c87368a3c67515",
);
/** Private exponents modulo P - 1 and Q - 1, and the inverse of Q modulo P. */
// prettier-ignore
const D_P = number(
  "c0f85872ae44b1e4f51d40cdad62f7a59986aedd4265a5b7b029707eba69b8aa552db6f26a656a210e4b38e93eedf045",
  "34639d8a5b7b288de5ecb0245311fc8042a97cb2faafaacf24a4aedb8eea98f4f5e8516ba1624632e6f15affeb646403",
  "294632c6eb8a1fb6891c022f5d1b995f08de1b700c5a72700cd01957b73b0f3d49a82f8050a6913194433dbbc38f4d35",
  "db5d8a233907aed207b0766e4cb0afdff4b954e0cd029de03abf54daee77b61a9f551a4de2e591913fce8a1ca5ef6cc3",
);
// prettier-ignore
const D_Q = number(
  "84a67be6f735313493beb7321f47f615b6b4fa8f0fc6987f124084ee4de34ff672634864040a58287f4811c29f43699a",
  "86c35ccebf122fc2e4e02022cf586aa249857d18cdd1963fd2e02862f93ac3d6d2052d7b960a11d7ba4ff05e92c48261",
  "750bd952614022b5d0146536995209f0dfd16ee948c08c647aaf19f317e9226043b0541de605f4c8bd502cca12eb93d0",
  "884b55aabe3f0a8b4fc2f63dbf1aeb7fc60168bc8a0b562a1ea669ce4a54226bcda63c7f7c3ee10d3fc8352395af6e71",
);
// prettier-ignore
const Q_INVERSE = number(
  "4d7f6e9b00b0c6a8bdf8680438d12b4f1a611762d7071d4a02c403fb94e6f122914fe38c45132229ffc9a07b07ca5d5e",
  "0db4997ab98a7b535c11f02a4b8c9f3e7c55a8b0e41fd474259a2099e9a847eca06bbbb470a738fbabecd56b576fcf9d",
  "1cd964fe82b8c5236702f79f175a988cf5ab8c8fc95819cd9bbc90df5ec184019d915e711830b2bc90ad58f895674ef7",
  "2e3263811b64d1e213086c64d8a285d45c4286da0c3deec06ec77d9e0e51cd80f0fe0a1d906bf92b5badac1742857b88",
);

export const MODULE_SIGNING_KEY = { modulus: P * Q, P, Q, D_P, D_Q, Q_INVERSE } as const;
