// A dense layer as intnet computes it, in plain Verilog-2005. Generated; parameters come from the test bench.
//
// Every sum is exact until the accumulator cuts it, and is rounded once after it.

// One rounding: value / 2**SHIFT by a mode, then into a word of OUT_BITS.
//   MODE      0 floor, 1 to_zero, 2 ceil, 3 to_away, 4 ties_even, 5 ties_pos, 6 ties_neg, 7 ties_away, 8 ties_zero, 9 jam,
//             10 stochastic (rounds up where rest and `fraction` together reach one), 11 pseudo_stochastic
//   OVERFLOW  0 wrap, 1 saturate, 2 saturate without the least number
module intnet_round_shift #(
    parameter IN_BITS = 32,
    parameter SHIFT = 8,
    parameter MODE = 4,
    parameter OVERFLOW = 1,
    parameter OUT_BITS = 16,
    parameter RANDOM_BITS = 1
) (
    input signed [IN_BITS-1:0] value,
    input [RANDOM_BITS-1:0] fraction,
    output reg signed [OUT_BITS-1:0] result
);
    // wide enough for the addend, for the fraction beside the rest, and for the limits of the word
    localparam LONGEST = IN_BITS > OUT_BITS ? IN_BITS : OUT_BITS;
    localparam WIDE = LONGEST + (SHIFT > RANDOM_BITS ? SHIFT : RANDOM_BITS) + 2;
    localparam signed [WIDE-1:0] ONE = 1;
    localparam signed [WIDE-1:0] REST = (ONE <<< SHIFT) - ONE;
    localparam signed [WIDE-1:0] HALF = (ONE <<< SHIFT) >>> 1;
    localparam signed [WIDE-1:0] MAXIMUM = (ONE <<< (OUT_BITS - 1)) - ONE;
    localparam signed [WIDE-1:0] MINIMUM = OVERFLOW == 2 ? -MAXIMUM : -MAXIMUM - ONE;
    localparam LOW_BITS = SHIFT / 2;

    reg signed [WIDE-1:0] wide, quotient, rest, addend, rounded, magnitude, upper, lower, random;
    reg negative;

    always @* begin
        wide = value;
        random = {{(WIDE - RANDOM_BITS){1'b0}}, fraction};
        negative = wide < 0;
        quotient = wide >>> SHIFT;
        rest = wide - (quotient <<< SHIFT);
        magnitude = negative ? -wide : wide;
        upper = 0;
        lower = 0;
        addend = 0;
        if (SHIFT > 0)
            case (MODE)
                1: addend = negative ? REST : 0;
                2: addend = REST;
                3: addend = negative ? 0 : REST;
                4: addend = HALF - ONE + (quotient[0] ? ONE : 0);
                5: addend = HALF;
                6: addend = HALF - ONE;
                7: addend = negative ? HALF - ONE : HALF;
                8: addend = negative ? HALF : HALF - ONE;
                default: addend = 0;
            endcase
        rounded = quotient + ((rest + addend) >>> SHIFT);
        if (MODE == 9) rounded = quotient | ONE;
        if (MODE == 10) begin  // the rest as a fraction of RANDOM_BITS bits
            if (SHIFT > RANDOM_BITS) rest = rest >>> (SHIFT - RANDOM_BITS);
            else rest = rest <<< (RANDOM_BITS - SHIFT);
            rounded = quotient + ((rest + random) >>> RANDOM_BITS);
        end
        if (MODE == 11) begin  // the magnitude's upper discarded bits against its lower ones
            quotient = magnitude >>> SHIFT;
            rest = magnitude - (quotient <<< SHIFT);
            upper = rest >>> LOW_BITS;
            lower = (rest - (upper <<< LOW_BITS)) <<< (SHIFT % 2);
            quotient = quotient + (upper > lower ? ONE : 0);
            rounded = negative ? -quotient : quotient;
        end
        if (OVERFLOW != 0 && rounded > MAXIMUM) result = MAXIMUM[OUT_BITS-1:0];
        else if (OVERFLOW != 0 && rounded < MINIMUM) result = MINIMUM[OUT_BITS-1:0];
        else result = rounded[OUT_BITS-1:0];
    end
endmodule

// A product a clock, added to an exact sum; `clear` makes the product the first of a new one.
module intnet_multiply_add #(
    parameter A_BITS = 16,
    parameter B_BITS = 16,
    parameter SUM_BITS = 40
) (
    input clock,
    input enable,
    input clear,
    input signed [A_BITS-1:0] a,
    input signed [B_BITS-1:0] b,
    output reg signed [SUM_BITS-1:0] sum
);
    wire signed [SUM_BITS-1:0] wide_a = a;
    wire signed [SUM_BITS-1:0] wide_b = b;
    always @(posedge clock)
        if (enable) sum <= (clear ? {SUM_BITS{1'b0}} : sum) + wide_a * wide_b;
endmodule

// What an accumulator of ACCUMULATOR_BITS keeps of an exact sum.
module intnet_accumulator #(
    parameter SUM_BITS = 40,
    parameter ACCUMULATOR_BITS = 32,
    parameter WRAPS = 0
) (
    input signed [SUM_BITS-1:0] sum,
    output signed [ACCUMULATOR_BITS-1:0] kept
);
    intnet_round_shift #(
        .IN_BITS(SUM_BITS), .SHIFT(0), .MODE(0), .OVERFLOW(WRAPS ? 0 : 1), .OUT_BITS(ACCUMULATOR_BITS), .RANDOM_BITS(1)
    ) cut (.value(sum), .fraction(1'b0), .result(kept));
endmodule

// One output of one sample: inputs and weights come one a clock, the result stands after the last.
module intnet_dense_forward #(
    parameter X_BITS = 16,
    parameter W_BITS = 16,
    parameter B_BITS = 16,
    parameter B_SHIFT = 0,
    parameter A_BITS = 32,
    parameter A_WRAPS = 0,
    parameter S_BITS = 48,
    parameter Y_SHIFT = 14,
    parameter Y_MODE = 4,
    parameter Y_OVERFLOW = 1,
    parameter Y_BITS = 16,
    parameter Y_RANDOM = 1,
    parameter RELU = 0
) (
    input clock,
    input enable,
    input clear,
    input signed [X_BITS-1:0] x,
    input signed [W_BITS-1:0] w,
    input signed [B_BITS-1:0] bias,
    input [Y_RANDOM-1:0] fraction,
    output signed [Y_BITS-1:0] y
);
    wire signed [S_BITS-1:0] sum, with_bias;
    wire signed [A_BITS-1:0] products, total;
    wire signed [Y_BITS-1:0] rounded;
    wire signed [S_BITS-1:0] wide_bias = bias;
    intnet_multiply_add #(.A_BITS(X_BITS), .B_BITS(W_BITS), .SUM_BITS(S_BITS)) add (
        .clock(clock), .enable(enable), .clear(clear), .a(x), .b(w), .sum(sum)
    );
    intnet_accumulator #(.SUM_BITS(S_BITS), .ACCUMULATOR_BITS(A_BITS), .WRAPS(A_WRAPS)) of_products (
        .sum(sum), .kept(products)
    );
    assign with_bias = products + (wide_bias <<< B_SHIFT);
    intnet_accumulator #(.SUM_BITS(S_BITS), .ACCUMULATOR_BITS(A_BITS), .WRAPS(A_WRAPS)) of_total (
        .sum(with_bias), .kept(total)
    );
    intnet_round_shift #(
        .IN_BITS(A_BITS), .SHIFT(Y_SHIFT), .MODE(Y_MODE), .OVERFLOW(Y_OVERFLOW), .OUT_BITS(Y_BITS), .RANDOM_BITS(Y_RANDOM)
    ) round (.value(total), .fraction(fraction), .result(rounded));
    assign y = RELU && rounded < 0 ? {Y_BITS{1'b0}} : rounded;
endmodule

// One weight: errors and inputs of the batch come one sample a clock, the new weight stands after the last.
module intnet_dense_update #(
    parameter X_BITS = 16,
    parameter D_BITS = 16,
    parameter W_BITS = 16,
    parameter GA_BITS = 32,
    parameter GA_WRAPS = 0,
    parameter U_BITS = 64,
    parameter G_SHIFT = 13,
    parameter G_MODE = 10,
    parameter G_OVERFLOW = 1,
    parameter G_BITS = 16,
    parameter G_RANDOM = 16,
    parameter FACTOR = 1,
    parameter W_LEFT = 0,
    parameter G_LEFT = 0,
    parameter N_SHIFT = 0,
    parameter N_MODE = 10,
    parameter N_OVERFLOW = 1,
    parameter N_BITS = 16,
    parameter N_RANDOM = 16
) (
    input clock,
    input enable,
    input clear,
    input signed [X_BITS-1:0] x,
    input signed [D_BITS-1:0] dy,
    input signed [W_BITS-1:0] w,
    input [G_RANDOM-1:0] gradient_fraction,
    input [N_RANDOM-1:0] weight_fraction,
    output signed [N_BITS-1:0] moved
);
    wire signed [U_BITS-1:0] sum, exact;
    wire signed [GA_BITS-1:0] accumulated;
    wire signed [G_BITS-1:0] gradient;
    wire signed [U_BITS-1:0] wide_weight = w;
    wire signed [U_BITS-1:0] wide_gradient = gradient;
    localparam signed [U_BITS-1:0] WIDE_FACTOR = FACTOR;
    intnet_multiply_add #(.A_BITS(X_BITS), .B_BITS(D_BITS), .SUM_BITS(U_BITS)) add (
        .clock(clock), .enable(enable), .clear(clear), .a(x), .b(dy), .sum(sum)
    );
    intnet_accumulator #(.SUM_BITS(U_BITS), .ACCUMULATOR_BITS(GA_BITS), .WRAPS(GA_WRAPS)) of_products (
        .sum(sum), .kept(accumulated)
    );
    intnet_round_shift #(
        .IN_BITS(GA_BITS), .SHIFT(G_SHIFT), .MODE(G_MODE), .OVERFLOW(G_OVERFLOW), .OUT_BITS(G_BITS), .RANDOM_BITS(G_RANDOM)
    ) of_gradient (.value(accumulated), .fraction(gradient_fraction), .result(gradient));
    assign exact = (wide_weight <<< W_LEFT) - ((WIDE_FACTOR * wide_gradient) <<< G_LEFT);
    intnet_round_shift #(
        .IN_BITS(U_BITS), .SHIFT(N_SHIFT), .MODE(N_MODE), .OVERFLOW(N_OVERFLOW), .OUT_BITS(N_BITS), .RANDOM_BITS(N_RANDOM)
    ) of_weight (.value(exact), .fraction(weight_fraction), .result(moved));
endmodule
