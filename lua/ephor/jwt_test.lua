local t = require "ephor.test"
local jwt = require "ephor.jwt"
local json = require "ephor.json"

-- Keys and tokens made once by a throw-away script; the private halves are gone.
local vectors = {
  keys = [==[{"keys":[{"kty":"RSA","n":"rEXiQArEZ9m28FhopGzIxhHV0y6KAaCbC9Qz4j79TsOS_dn7sxi-A_WaOMUiej6LG-JPU0eGp_8v4DqivlOJYcILWOAsR9HvE-a6TAU9U1omp65Sf8Y2N6mgUquKU3x8WcnOaNnWu28aifycL1WMglQuR5jVf5LZI2Gh2rgv6InFQQD4Q3bLgmvrk2r77zHLYYvYcW91n1CHZTnquPhCw4OoVOpKPgqZOu91W0pJm17GCDQ80cJNpeMw6uqXxHm9PaN_FHENm74EdkXg5qYotUhkkavA6ob3PRiX5HP-6Mg0nlgJ2Ut6lcyyn3V1MntYxw4mY38IFtB8ugvHmqrXNw","e":"AQAB","kid":"rsa","use":"sig"},{"kty":"EC","crv":"P-256","x":"dgPol2qAbExEcZIwtGCQSnS0uabXuPZS17FMDSxOP5Q","y":"AsHkCgaBwLcipqUV6nyHYGprnVX2I79aQTS3rdjZFiw","kid":"p256"},{"kty":"EC","crv":"P-384","x":"-LZJ7BmWKXIUSPt3jn0PkDGVma_VNsk35WN6MgdjINRmAMvZuLwhbf17pvN86swO","y":"VItsYHXF5Bow8qg7nADpMJKq3hDYuAnVWazdGG-rT4jrsfg5UzdKxUHTJQqKMw9K","kid":"p384"},{"kty":"OKP","crv":"Ed25519","x":"D_LgSyPqc1NmzcWJly6NZyvnSsJk6SD90jbvh6wRQLQ","kid":"ed"}]}]==],
  weak = [==[{"keys":[{"kty":"RSA","n":"0mQ-gYWm48UQwfPYHx-gGtG2ZACUpq2_iZrfKCLXl4NYNR3ATp88H4cI4VeCpBEIYJVCMHtgSuN7FDwQ68hsBZp4etSjWGQ-tuIHuGNOJRflJMuFawReaVsDmXeqVjNWinY-_pRHQtEfCyjR2WtA28-I9EJbAOgzcvG1v4e6jJ0","e":"AQAB","kid":"weak"}]}]==],
  RS256 = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.Eioc0e12kePoXEnN_7F-mhgGvZ6PQZZYrsoiUBAEVEKG3NL8wvhVajcz8Wrl1YGrDmb8wPpYCgEt_sD-1BM_jda00RRt51fx2DvKxqQLzheIpUiHI_yxwj7Ry9r_0nxM5tBxRY6isOl1lchAEHDxt8Km8sT5gvL4vYDVfGpUeKm7CR35qUErbDKmKdFUFkyQ-igYw_xaeu-BeRl1HwZNIAYHKVMcNFGxENiLhRiS6dud9ZhVWo33Xmf1VQaxxyhcDGGd40FGTMpJvAwzAXxI66MQj7KUpGxLmlKHPQjDLSeggeAahpBWBqBwX1hcYSLWgDC48SRy792BLUBoT2okig",
  RS384 = "eyJhbGciOiJSUzM4NCIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.SHLSYqA6mtEgzukYrOFTwO0wMq1RENCZgJfFBAa1dfazP7NSupLrm9zfKKIgAnmPlUHaMz7YX_Fev-c_V7mLF4j_Pwu58VX6wGTD92M_j5ftAMeCP3ZYybS8ps0cbysBl8m8OZBMGr7owdS6kldpQpA2MGbwAZPq8LHdYdlp4smAcEcrpbwnlN_x2IsmjoGhWXu1p_FJdOh_r1Y98qJQdBmyneMV0NtLmhvNr1N4AowGThASpxc6EUM5ejrPGx0IiOOytmKx_538gqDrmvaEXdhvFl5I_bOEKt7Bai0rR6RKaaLpj0PbyNzt-HKn5SY_PkhIk9GRckdujDfV0H4i1A",
  RS512 = "eyJhbGciOiJSUzUxMiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.H_EucWAf-CgccCgM-Ww1RxJuIdqIzyLc-StcZnGgIVcRo8bExSfooQVnh_moR4UMsiH38X5VU7aEHu-puVc8u7gHDLt0KW9qDMktPjaeX2GhH8HzM-Npp-J1ZRpn4CSd2RDQjJJwRUQRjTCXhq5RxZNUlogCuk13kBoAVS89-I24IXNFj9G9RfgpsX8IDJ7Rx0VMrlbLvojaThqlNzZbu0k9FOj-Iexz6L84I7yotGSNuJjkMdm1PhBmKSccAW9lkSr8POGqoffeS9mC3LNmChuWgFzmh8G1V9vXiJclOJl-qnO2-TaksKMOHanpeK_eC1PZdjenpkkkDX3M6--aTQ",
  PS256 = "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.l3QsjYl94amMrWSmsizW25FNdNeSLGFwkpQam1u1P4G5dCsDMZbK2EPf2SkuKy01X9c1kP_UzoLd4JyYcDUO9yfxq-LwIIIBqLPMwpzF4AofWdbQjCd5yu1i7YWwSUf2Qkfrd24y0VpY5fwTg3XkuBwah-2umQwHjsakT1IrEMol4hu52XHHCoOKpZAfdy9-ZDT7DGr9iX2U9GyWG0cTEklMhRFwFyEp7lonEJ9s8W_5bskuzpBRgEssdYOIGKaJJrVgQZvQhw9Jyb0GZ4p4rtZqpypbxkIymIKWcWEkP1BNGFdGUnHGfuzWXMZATC8hiFtOwc_NyUh9V3N99YoPAg",
  ES256 = "eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.1HVEo3PBzgxm6uoNLyPCzZe4L9uwzqppPcDXiO-PEvjuIfMwOV7SU_k25rNfzMELxaJrsuHmaPEWi_Fa485BlQ",
  ES384 = "eyJhbGciOiJFUzM4NCIsImtpZCI6InAzODQiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.o6BzbWE6dfApF5SwH_22P-h8neLtYnwM6R2bfYLb2qRaHlKc2siTMy96SizqpAHpebmIGRaJb0a1fQ1uV5_UBYcJYhxxo0uu-CnpkiOQxDmmyUi8DKbVpbfE0RmzM9Tl",
  EdDSA = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.A_bB4IAcdujK7fo7PwUrLxlrUc4Rc1-GLQWgAeWG7a0YWDO4WAvDc_KowCBVoOYNzZG5MBzIbQHLGp2bj0T8Bg",
  no_exp = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDB9.jyrNasQ5hOPPKe70GposOpBQMt8kn4ny4CA-0VcwrShdhTWB92lj1I0Vq0ND9Da8ZRbB9BzzgYCPs9poIra5Dw",
  exp_text = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6IjE3MDAwMDM2MDAifQ.2htiEdV4TNV6KbXRsqUPphL5O-Z9MERbk-r6H_1QXV8mGQgpS3vkdwWfJjpAe6g2sMkYCBKk2nN4iIJCmK5xBw",
  nbf_later = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDEwMDAsImV4cCI6MTcwMDAwMzYwMH0.fzw862sLrDXT5Q7CLqQZ0GeXgGyaBIMtFg0LqaEofPhXRwON1eWOpeVex0xE9dadjafT_7HzoYIDdaqXPy0HBg",
  iat_later = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAxMDAwLCJleHAiOjE3MDAwMDM2MDB9.9M909wVhwie7916iNKHnLVBvJ-jVd9aerqBiK6E9Ia761s6zkoADlvpTk03oW3Qi5dwWBBCbzYfj40oA9C3oDg",
  aud_text = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJhZ2VudHMiLCJzdWIiOiJhbm4iLCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwfQ.vrAIqwbaJ2sxxY6B_9zukZjlclMZugqTB_1uxd2BqYAem6ir2vxWI9AmIU3X_LAeKm4DFVrwawKHVjSgM6L-AA",
  no_aud = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJzdWIiOiJhbm4iLCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwfQ.n-N0TXF-RyBVexZmN_SVlC1R7rf_6p9ZPSb573UU4EtRyjnWqblpuAHBSTM2OV78mFkt4_w3WAg_gUvMw-zmBw",
  aud_other = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsieCJdLCJzdWIiOiJhbm4iLCJpYXQiOjE3MDAwMDAwMDAsIm5iZiI6MTcwMDAwMDAwMCwiZXhwIjoxNzAwMDAzNjAwfQ.-a0HU25Aszu_jMkhw3eUrqNkkvkuiTR0RZuw8Z2z_kUq6EU7JUxYTFy4PBoTvYc_5jlQT3WbjAc2Bdmi16VxBg",
  no_kid = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.fwnjzcGoyNMSnAa3prRaCJpNaDV_FL3BHh72xa3LnBG5q9glhsNmta5ZWiAKopE_zyjjaRIp_jK2B12pEW4DCA",
  wrong_kid = "eyJhbGciOiJFZERTQSIsImtpZCI6Im5vYm9keSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.D7XZ1D_HlhIgK2ygClSWKdPKOKK5gmFoTr4kenfk4Hh3S5Yy3pJkRt3yp6mM9rHuj_XW80ABqv9N3qT140oiCQ",
  kid_number = "eyJhbGciOiJFZERTQSIsImtpZCI6NywidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.g857kv08HdjHpyHZQrpyJGVtFCv-5FgSUTDm0eSF8mbiopibmD-lB88_l9sL0sh12VDIMk-l9-it4rxf4tYfCg",
  crit = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIiwiY3JpdCI6WyJleHAiXX0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.6nf2KNfSlseqUsETu_Q5tSLGFNeBfsM2WtDNo60hsIjFx25-MM45Ba-DdzZKqufdX_MRdxe9LZXdhgp-jMhvDw",
  hs256 = "eyJhbGciOiJIUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.KCLY_MPXLymyKJ7VeEO5751IdkDBmm89rmHaDQptSkQ",
  hs256_raw = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.VSAeWj9hasw_oa5sqxb7cyUSg3uC0TENxv5vOoVnhUM",
  none = "eyJhbGciOiJub25lIiwia2lkIjoiZWQiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.",
  none_signed = "eyJhbGciOiJub25lIiwia2lkIjoiZWQiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.i9-fRWX0zF-05suEA1lV7E6mcA5cFtuw83FFCQPOy3uayLTW31QeJv2PZiqU7MbStSxVl-BkY5hzV7bfbFPvCw",
  confused = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.HzdgTgzIcVzM5IrPrf0_P0GM3Jt1KCKWZXNhP7rLgyQF4bdlx451U6bFTFhGrpDgF0oi9FEEWFv19-RNGxz0DA",
  es_der = "eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.MEQCICPOoyLp0Ql38gNUFqOgnpftnYBXmSj8Y6tie5B6h0FQAiBUXKFRKIL8WK5t360-i88wJ6vjBYnbQaDFzKJSUZNvcA",
  es_zero = "eyJhbGciOiJFUzI1NiIsImtpZCI6InAyNTYiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
  claims_array = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.WzFd.kQIZEcZ5l8-myRooEdomb3rINpHMEMAqIE0H0rTgq9R3lGRZyy0UlpQ2eEUGIIkn9xpbGSkz5EKh44n_ItFwDg",
  claims_twice = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJleHAiOjE3MDAwMDM2MDAsImV4cCI6OTk5OTk5OTk5OX0.CZREks9QTf8nIg1E7qs_5pDuZxlcZxj5WmBPZ1enK1iI4YXvnIbrhWkeS7TsUav18SCtzr5s2Tmi3UPc_cOfCw",
  pss_as_rs = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.W5qFMMez_73e6Y5zR26EGD_QL7jYSEP8rQIk4snWBHA7iKH-wu4Yst-q6k2rEesoO9p5mVpM1-2xM5j_NLuY3qJAfPP2xR_eisSiD58QNCUPD8gLHAoqG9JXqu4Gz8GoqaNEGfzirzM9ZFyS_wDylU9fg83UK952KyjfwWzAZLoY9-IpukOBcERdNlDHmIOhOYYk3J9YoX6RBTu76RKhAceKi2rf6ufvP788I9LPSXYSk004W0CQhafXnstdFuofx-ZyEgEC_GRVi9Dzi8J8oFxntrv8uvE1G_SKBvMqAeaoYJZW5HQb_5DZE3-YIoSyFT-bIkFpG82FaWT8_zSsAA",
  embedded = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIiwiandrIjp7Imt0eSI6Ik9LUCIsImNydiI6IkVkMjU1MTkiLCJ4IjoiQVFFQkFRRUJBUUVCQVFFQkFRRUJBUUVCQVFFQkFRRUJBUUVCQVFFQkFRRSJ9fQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOlsiYWdlbnRzIiwib3RoZXIiXSwic3ViIjoiYW5uIiwiaWF0IjoxNzAwMDAwMDAwLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.jWk2hkDZkpZgDYCAqO3b4PhBe9mg4-KW1b8ldeF-R97iuap5Nql9SfThfet4ovnIKOfEg9It9MrQexig0l_VDw",
}

local NOW = 1700000100
local keys = jwt.keys(vectors.keys)

local function verify(token, more)
  local options = { keys = keys, algorithms = { "EdDSA" }, issuer = "https://login.example", audience = "agents", now = NOW }
  for name, value in pairs(more or {}) do
    options[name] = value
  end
  return jwt.verify(token, options)
end

local function refused(token, why, more)
  local claims, reason = verify(token, more)
  t.ok(claims == nil, "the token must be refused")
  t.ok(reason:find(why, 1, true), ("expected '%s', got '%s'"):format(why, reason))
end

for _, alg in ipairs { "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA" } do
  t.case(alg .. ": a good token passes, and no changed one", function()
    local token = vectors[alg]
    local claims, header = verify(token, { algorithms = { alg } })
    t.equal(claims and claims.sub, "ann")
    t.equal(header.alg, alg)
    local head, payload, signature = token:match("^(.-)%.(.-)%.(.-)$")
    local forged = payload:sub(1, 20) .. (payload:sub(21, 21) == "A" and "B" or "A") .. payload:sub(22)
    refused(head .. "." .. forged .. "." .. signature, "signature", { algorithms = { alg } })
    refused(head .. "." .. payload .. "." .. signature:sub(1, -5), "the token", { algorithms = { alg } })
    refused(head .. "." .. payload .. "." .. signature .. "AAAA", "signature", { algorithms = { alg } })
    refused(token, "not accepted", { algorithms = { alg == "EdDSA" and "RS256" or "EdDSA" } })
  end)
end

t.case("none is no algorithm, signed or not", function()
  refused(vectors.none, "three parts")
  refused(vectors.none_signed, "not accepted")
  t.ok(not pcall(verify, vectors.none_signed, { algorithms = { "none" } }), "none can't even be asked for")
end)

t.case("a public key is never the secret of an HMAC", function()
  refused(vectors.hs256, "not accepted", { algorithms = { "RS256", "EdDSA" } })
  refused(vectors.hs256_raw, "not accepted")
  t.ok(not pcall(verify, vectors.hs256, { algorithms = { "HS256" } }), "HS256 can't be asked for")
end)

t.case("the key's type decides, not the token", function()
  refused(vectors.confused, "not that of its key", { algorithms = { "RS256", "EdDSA" } })
  refused(vectors.pss_as_rs, "signature", { algorithms = { "RS256", "PS256" } })
end)

t.case("signatures of ECDSA have one form", function()
  refused(vectors.es_der, "signature", { algorithms = { "ES256" } })
  refused(vectors.es_zero, "signature", { algorithms = { "ES256" } })
end)

t.case("times", function()
  local exp = 1700003600
  t.ok(verify(vectors.EdDSA, { now = exp + 29 }))
  refused(vectors.EdDSA, "expired", { now = exp + 30 })
  refused(vectors.EdDSA, "expired", { now = exp, leeway = 0 })
  t.ok(verify(vectors.EdDSA, { now = 1700000000 - 30 }))
  refused(vectors.EdDSA, "not valid yet", { now = 1700000000 - 31 })
  refused(vectors.nbf_later, "not valid yet")
  refused(vectors.iat_later, "not valid yet")
  refused(vectors.no_exp, "never expires")
  refused(vectors.exp_text, "malformed")
  refused(vectors.EdDSA, "too long", { lifetime = 3599 })
  t.ok(verify(vectors.EdDSA, { lifetime = 3600 }))
end)

t.case("issuer, audience, claims and type", function()
  refused(vectors.EdDSA, "issuer", { issuer = "https://login.example/" })
  t.ok(verify(vectors.aud_text))
  refused(vectors.no_aud, "audience")
  refused(vectors.aud_other, "audience")
  refused(vectors.EdDSA, "claim 'scope'", { required = { "sub", "scope" } })
  t.ok(verify(vectors.EdDSA, { required = { "sub" }, type = "jwt" }))
  refused(vectors.EdDSA, "another type", { type = "at+jwt" })
end)

t.case("the key is the one that the token names", function()
  refused(vectors.wrong_kid, "not known")
  refused(vectors.kid_number, "not known")
  t.ok(verify(vectors.no_kid), "without a kid the only key of that type will do")
  local two = json.decode(vectors.keys)
  local copy = {}
  for name, value in pairs(two.keys[4]) do
    copy[name] = value
  end
  copy.kid = "ed2"
  two.keys[5] = copy
  refused(vectors.no_kid, "several", { keys = jwt.keys(two) })
end)

t.case("a key inside the token is not looked at, and extensions are refused", function()
  t.ok(verify(vectors.embedded), "the header's own key changes nothing")
  refused(vectors.crit, "extensions")
end)

t.case("what is no token", function()
  for _, text in ipairs { "", "a", "a.b", "a.b.c", "a.b.c.d", ("a"):rep(20000), "e30.e30.e30", " " .. vectors.EdDSA, vectors.EdDSA .. "=" } do
    t.ok(not verify(text), text:sub(1, 20))
  end
  t.ok(not verify(nil) and not verify({}))
  refused(vectors.claims_array, "malformed")
  refused(vectors.claims_twice, "malformed")
end)

t.case("sets of keys that must not be used", function()
  local function bad(set, why)
    local good, err = pcall(jwt.keys, set)
    t.ok(not good and err:find(why, 1, true), ("expected '%s', got '%s'"):format(why, tostring(err)))
  end
  bad("{}", "a set of keys")
  bad('{"keys":[]}', "no key")
  bad(vectors.weak, "no good key")
  bad('{"keys":[{"kty":"oct","k":"AAAA"}]}', "symmetric")
  bad('{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA","kid":"short"}]}', "'short'")
  bad('{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"x"}]}', "private")
  local set = json.decode(vectors.keys)
  set.keys[2].kid = "ed"
  bad(set, "twice")
  set = json.decode(vectors.keys)
  set.keys[2].x = set.keys[2].y
  bad(set, "no good key")
  set = json.decode(vectors.keys)
  set.keys[1].alg = "EdDSA"
  bad(set, "can't be of EdDSA")
end)

t.case("use, key_ops and alg of a key are kept to", function()
  local set = json.decode(vectors.keys)
  set.keys[4].use = "enc"
  refused(vectors.EdDSA, "not known", { keys = jwt.keys(set) })
  set.keys[4].use = "sig"
  set.keys[4].key_ops = { "sign" }
  refused(vectors.EdDSA, "not known", { keys = jwt.keys(set) })
  set.keys[4].key_ops = { "verify" }
  set.keys[1].alg = "RS512"
  t.ok(verify(vectors.EdDSA, { keys = jwt.keys(set) }))
  refused(vectors.RS256, "not that of its key", { keys = jwt.keys(set), algorithms = { "RS256" } })
  set.keys[4].alg = "ES256K"
  t.ok(pcall(jwt.keys, set), "an algorithm of others is left out, not an error")
end)

t.case("options that are forgotten are errors, not open doors", function()
  for _, name in ipairs { "keys", "now", "issuer", "audience", "algorithms" } do
    local options = { keys = keys, algorithms = { "EdDSA" }, issuer = "x", audience = "y", now = NOW }
    options[name] = nil
    t.ok(not pcall(jwt.verify, vectors.EdDSA, options), name)
  end
  t.ok(not pcall(verify, vectors.EdDSA, { audiense = "x" }))
end)

t.case("bearer", function()
  t.equal(jwt.bearer("Bearer a.b.c"), "a.b.c")
  t.equal(jwt.bearer("bearer  a.b.c"), "a.b.c")
  for _, value in ipairs { "a.b.c", "Basic a.b.c", "Bearer a.b.c,Bearer d.e.f", "Bearer", "Bearer a.b" } do
    t.ok(jwt.bearer(value) == nil, value)
  end
  t.ok(jwt.bearer(nil) == nil)
end)

-- What c:http does, and a clock that the test moves.
local function caller(answer)
  local c = { now = 1000, asked = 0, answer = answer }
  function c:http(request)
    self.asked = self.asked + 1
    self.request = request
    if not self.answer then
      return nil, "timeout"
    end
    return { status = self.status or 200, body = self.answer, headers = {} }
  end
  return c
end

t.case("keys of an issuer are fetched once, and anew after their time", function()
  local c, keys_of = caller(vectors.keys), jwt.remote { cluster = "issuer", path = "/jwks", host = "login.example" }
  t.ok(keys_of(c).by_kid.ed)
  t.equal(c.request, { cluster = "issuer", path = "/jwks", host = "login.example", timeout = 2 })
  c.now = 1299
  t.ok(keys_of(c) and c.asked == 1)
  c.now = 1300
  t.ok(keys_of(c) and c.asked == 2)
end)

t.case("a key that isn't known is asked for, but not too often", function()
  local c, keys_of = caller(vectors.keys), jwt.remote { cluster = "issuer", path = "/jwks" }
  t.ok(keys_of(c, "new") and keys_of(c, "new") and c.asked == 1)
  c.now = 1030
  t.ok(keys_of(c, "new") and c.asked == 2)
  t.ok(keys_of(c, "ed") and c.asked == 2)
end)

t.case("while the issuer is away old keys are good for a while, then none", function()
  local c, keys_of = caller(vectors.keys), jwt.remote { cluster = "issuer", path = "/jwks", every = 60, stale = 100 }
  t.ok(keys_of(c))
  c.answer, c.now = nil, 1159
  t.ok(keys_of(c) and c.asked == 2)
  c.now = 1160
  local keys_now, why = keys_of(c)
  t.ok(keys_now == nil and why:find("timeout", 1, true) and c.asked == 2, "a failure is not asked for again at once")
  c.now = 1170
  keys_now, why = keys_of(c)
  t.ok(keys_now == nil and why:find("timeout", 1, true) and c.asked == 3)
  c.answer, c.now = vectors.keys, 1180
  t.ok(keys_of(c))
end)

-- A caller whose calls wait where c:http and c:delay do: each is a coroutine that the test resumes.
local function waiting(answer)
  local c = caller(answer)
  local ask = c.http
  function c.http(self, request)
    coroutine.yield "http"
    return ask(self, request)
  end
  function c.delay()
    coroutine.yield "delay"
  end
  return c
end

t.case("one call fetches, and the others wait for it", function()
  local c, keys_of = waiting(vectors.keys), jwt.remote { cluster = "issuer", path = "/jwks" }
  local calls = {}
  for i = 1, 5 do
    calls[i] = coroutine.wrap(keys_of)
    t.equal(calls[i](c), i == 1 and "http" or "delay")
  end
  t.equal(calls[2](), "delay")
  t.ok(calls[1]().by_kid.ed)
  for i = 2, 5 do
    t.ok(calls[i]().by_kid.ed)
  end
  t.equal(c.asked, 1)
end)

t.case("a call that never comes back from the issuer holds nobody up for long", function()
  local c, keys_of = waiting(vectors.keys), jwt.remote { cluster = "issuer", path = "/jwks", timeout = 2 }
  t.equal(coroutine.wrap(keys_of)(c), "http") -- its client is gone
  local second, third = coroutine.wrap(keys_of), coroutine.wrap(keys_of)
  t.ok(second(c) == "delay" and third(c) == "delay")
  c.now = c.now + 3
  t.ok(second() == "http" and third() == "delay", "one of them takes its place")
  t.ok(second().by_kid.ed and third().by_kid.ed)
  t.equal(c.asked, 1)
end)

t.case("while keys are fetched anew, the old ones are good", function()
  local c, keys_of = waiting(vectors.keys), jwt.remote { cluster = "issuer", path = "/jwks" }
  local first = coroutine.wrap(keys_of)
  t.ok(first(c) == "http" and first().by_kid.ed)
  c.now = c.now + 300
  local renews = coroutine.wrap(keys_of)
  t.equal(renews(c, "ed"), "http")
  t.ok(keys_of(c, "ed").by_kid.ed, "it doesn't wait")
  t.equal(coroutine.wrap(keys_of)(c, "new"), "delay") -- who has an unknown kid does
  t.ok(renews().by_kid.ed and c.asked == 2)
end)

t.case("what is no set of keys is none", function()
  for _, text in ipairs { "", "{}", "<html>", vectors.weak, '{"keys":[{"kty":"oct","k":"AAAA"}]}' } do
    local keys_now, why = jwt.remote { cluster = "issuer", path = "/jwks" }(caller(text))
    t.ok(keys_now == nil and why:find("no good set", 1, true), text)
  end
  local c = caller(vectors.keys)
  c.status = 503
  t.ok(not jwt.remote { cluster = "issuer", path = "/jwks" }(c))
  for _, source in ipairs { {}, { cluster = "x" }, { path = "/" }, { cluster = "x", path = "/", url = "x" }, { cluster = 5, path = "/" } } do
    t.ok(not pcall(jwt.remote, source))
  end
end)

t.case("the kid of a token", function()
  t.equal(jwt.kid(vectors.EdDSA), "ed")
  t.ok(jwt.kid(vectors.no_kid) == nil and jwt.kid(vectors.kid_number) == nil and jwt.kid("x") == nil and jwt.kid(nil) == nil)
end)
