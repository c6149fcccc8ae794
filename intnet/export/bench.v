// Holds a dense layer against vectors that intnet wrote: iverilog -g2012 -o bench bench.v intnet_dense.v && vvp bench
// It ends with PASS and exit code 0, or FAIL and exit code 1. With +dump it writes what came out.

module bench;
    // PARAMETERS

    reg signed [X_BITS-1:0] inputs [0:SAMPLES*INPUTS-1];
    reg signed [W_BITS-1:0] weights [0:OUTPUTS*INPUTS-1];
    reg signed [B_BITS-1:0] biases [0:OUTPUTS-1];
    reg signed [Y_BITS-1:0] outputs [0:SAMPLES*OUTPUTS-1];
    reg signed [Y_BITS-1:0] got_outputs [0:SAMPLES*OUTPUTS-1];
    reg [Y_RANDOM-1:0] outputs_random [0:SAMPLES*OUTPUTS-1];
    reg signed [D_BITS-1:0] errors [0:SAMPLES*OUTPUTS-1];
    reg signed [N_BITS-1:0] weights_after [0:OUTPUTS*INPUTS-1];
    reg signed [N_BITS-1:0] got_weights [0:OUTPUTS*INPUTS-1];
    reg [G_RANDOM-1:0] gradient_random [0:OUTPUTS*INPUTS-1];
    reg [N_RANDOM-1:0] after_random [0:OUTPUTS*INPUTS-1];

    reg clock = 0, enable_forward = 0, enable_update = 0, clear = 0;
    reg signed [X_BITS-1:0] x = 0;
    reg signed [W_BITS-1:0] w = 0;
    reg signed [B_BITS-1:0] bias = 0;
    reg signed [D_BITS-1:0] dy = 0;
    reg [Y_RANDOM-1:0] output_fraction = 0;
    reg [G_RANDOM-1:0] gradient_fraction = 0;
    reg [N_RANDOM-1:0] weight_fraction = 0;
    wire signed [Y_BITS-1:0] y;
    wire signed [N_BITS-1:0] moved;
    integer sample, unit, place, wrong;

    intnet_dense_forward #(
        .X_BITS(X_BITS), .W_BITS(W_BITS), .B_BITS(B_BITS), .B_SHIFT(B_SHIFT), .A_BITS(A_BITS), .A_WRAPS(A_WRAPS),
        .S_BITS(S_BITS), .Y_SHIFT(Y_SHIFT), .Y_MODE(Y_MODE), .Y_OVERFLOW(Y_OVERFLOW), .Y_BITS(Y_BITS),
        .Y_RANDOM(Y_RANDOM), .RELU(RELU)
    ) forward (
        .clock(clock), .enable(enable_forward), .clear(clear), .x(x), .w(w), .bias(bias), .fraction(output_fraction), .y(y)
    );

    intnet_dense_update #(
        .X_BITS(X_BITS), .D_BITS(D_BITS), .W_BITS(W_BITS), .GA_BITS(GA_BITS), .GA_WRAPS(GA_WRAPS), .U_BITS(U_BITS),
        .G_SHIFT(G_SHIFT), .G_MODE(G_MODE), .G_OVERFLOW(G_OVERFLOW), .G_BITS(G_BITS), .G_RANDOM(G_RANDOM),
        .FACTOR(FACTOR), .W_LEFT(W_LEFT), .G_LEFT(G_LEFT), .N_SHIFT(N_SHIFT), .N_MODE(N_MODE), .N_OVERFLOW(N_OVERFLOW),
        .N_BITS(N_BITS), .N_RANDOM(N_RANDOM)
    ) update (
        .clock(clock), .enable(enable_update), .clear(clear), .x(x), .dy(dy), .w(w),
        .gradient_fraction(gradient_fraction), .weight_fraction(weight_fraction), .moved(moved)
    );

    task tick;
        begin
            #1 clock = 1;
            #1 clock = 0;
        end
    endtask

    initial begin
        wrong = 0;
        $readmemh("inputs.mem", inputs);
        $readmemh("weights.mem", weights);
        $readmemh("biases.mem", biases);
        $readmemh("outputs.mem", outputs);
        $readmemh("outputs_random.mem", outputs_random);
        if (CHECK_UPDATE) begin
            $readmemh("errors.mem", errors);
            $readmemh("weights_after.mem", weights_after);
            $readmemh("gradient_random.mem", gradient_random);
            $readmemh("after_random.mem", after_random);
        end

        enable_forward = 1;
        for (sample = 0; sample < SAMPLES; sample = sample + 1)
            for (unit = 0; unit < OUTPUTS; unit = unit + 1) begin
                bias = biases[unit];
                output_fraction = outputs_random[sample * OUTPUTS + unit];
                for (place = 0; place < INPUTS; place = place + 1) begin
                    clear = place == 0;
                    x = inputs[sample * INPUTS + place];
                    w = weights[unit * INPUTS + place];
                    tick;
                end
                got_outputs[sample * OUTPUTS + unit] = y;
                if (y !== outputs[sample * OUTPUTS + unit]) begin
                    if (wrong == 0)
                        $display("FAIL forward: sample %0d, output %0d: got %0d (%h), expected %0d (%h)", sample, unit,
                                 y, y, outputs[sample * OUTPUTS + unit], outputs[sample * OUTPUTS + unit]);
                    wrong = wrong + 1;
                end
            end
        enable_forward = 0;

        enable_update = CHECK_UPDATE;
        if (CHECK_UPDATE)
            for (unit = 0; unit < OUTPUTS; unit = unit + 1)
                for (place = 0; place < INPUTS; place = place + 1) begin
                    w = weights[unit * INPUTS + place];
                    gradient_fraction = gradient_random[unit * INPUTS + place];
                    weight_fraction = after_random[unit * INPUTS + place];
                    for (sample = 0; sample < SAMPLES; sample = sample + 1) begin
                        clear = sample == 0;
                        x = inputs[sample * INPUTS + place];
                        dy = errors[sample * OUTPUTS + unit];
                        tick;
                    end
                    got_weights[unit * INPUTS + place] = moved;
                    if (moved !== weights_after[unit * INPUTS + place]) begin
                        if (wrong == 0)
                            $display("FAIL update: output %0d, input %0d: got %0d (%h), expected %0d (%h)", unit, place,
                                     moved, moved, weights_after[unit * INPUTS + place],
                                     weights_after[unit * INPUTS + place]);
                        wrong = wrong + 1;
                    end
                end

        if ($test$plusargs("dump")) begin
            $writememh("got_outputs.mem", got_outputs);
            if (CHECK_UPDATE) $writememh("got_weights.mem", got_weights);
        end
        if (wrong != 0) begin
            $display("FAIL: %0d words differ", wrong);
            $fatal(1);
        end
        if (CHECK_UPDATE)
            $display("PASS: %0d outputs and %0d weights agree", SAMPLES * OUTPUTS, OUTPUTS * INPUTS);
        else
            $display("PASS: %0d outputs agree", SAMPLES * OUTPUTS);
        $finish;
    end
endmodule
